"""Where an evaluation is written, and how its files are known among those that are to be scored."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.evaluation.systems import System, split_name
from signllava_cli.files import read_json
from signllava_cli.generation.predictions_folder import PREDICTIONS_FILE

PAGES = (".html", ".htm")
CHART = re.compile(r"(scores|gains|by-[a-z-]+)\.png")


@dataclass(frozen=True)
class Outputs:
    """Where an evaluation goes: scores.json, and, if named, a LaTeX table, an HTML page, and a folder of charts.

    By default scores.json goes beside the file of the baseline; of folders of predictions side by side, into theirs.
    """

    scores: Path | None = None
    latex: Path | None = None
    report: Path | None = None
    charts: Path | None = None

    def require_safe(self, systems: Sequence[System], inputs: Sequence[Path | None]) -> Path:
        """Check, before anything is computed, that nothing but earlier output is written over; where the scores go.

        Raises:
            UserError: a name is that of something else.
        """
        scores = self.scores
        if scores is None:
            folders = {system.file.parent.parent for system in systems}
            together = len(systems) > 1 and len(folders) == 1 and systems[0].file.name == PREDICTIONS_FILE
            scores = folders.pop() if together else systems[0].file.parent
        if scores.suffix.lower() != ".json":
            scores /= "scores.json"
        if scores.parent.is_file() or (scores.exists() and not _holds_scores(scores)):
            raise UserError(f"--out {self.scores} is there and holds no scores: choose another name.")
        for option, file, endings in (
            ("--latex", self.latex, (".tex",)),
            ("--report", self.report, PAGES),
        ):
            if file is not None and (file.suffix.lower() not in endings or file.is_dir()):
                raise UserError(f"{option} {file}: give it the name of a file that ends in {endings[0]}.")
            if file is not None and file.exists() and not _is_eval_output(file):
                raise UserError(
                    f"{option} {file} is there, and was not written by `signllava eval`: choose another name."
                )
        read = {file.expanduser().resolve() for file in (*(system.file for system in systems), *inputs) if file}
        for file in (scores, self.latex, self.report):
            if file is not None and file.resolve() in read:
                raise UserError(f"{file} is scored, so nothing is written over it: choose another name.")
        if self.charts is not None and self.charts.exists() and not self.charts.is_dir():
            raise UserError(f"--charts {self.charts} is a file; name a folder.")
        return scores


def _holds_scores(file: Path) -> bool:
    try:
        return {"results", "signatures", "versions"} <= read_json(file).keys()
    except UserError:
        return False


def _is_eval_output(file: Path) -> bool:
    """Whether a table or a page begins as those that are written here."""
    with open(file, encoding="utf-8", errors="replace") as opened:
        beginning = opened.read(1000)
    return "hash of their ids" in beginning or "<title>signllava evaluation" in beginning


def is_output(path: Path) -> bool:
    """Whether `signllava eval` wrote `path`: scores, a LaTeX table, a page, a chart, or a folder of nothing else."""
    if path.is_dir():
        inside = list(path.iterdir())
        return bool(inside) and all(map(is_output, inside))
    if path.suffix.lower() == ".json":
        return _holds_scores(path)
    if path.suffix.lower() in (*PAGES, ".tex"):
        return path.is_file() and _is_eval_output(path)
    return CHART.fullmatch(path.name) is not None


def skip_outputs(given: Sequence[str]) -> list[str]:
    """`given`, each `FILE` or `NAME=FILE`, without earlier output of `signllava eval`, of which each is named.

    So `predictions/*` may be scored again, although scores.json lies there.

    Raises:
        UserError: one that has a NAME is such output, or all are.
    """
    outputs = [each for each in given if is_output(split_name(each)[1])]
    if named := [each for each in outputs if split_name(each)[0] is not None]:
        raise UserError(f"{named[0]}: this was written by `signllava eval`; name predictions.")
    if outputs and len(outputs) == len(given):
        raise UserError(f"{outputs[0]} was written by `signllava eval`, and no predictions are given; name some.")
    for each in outputs:
        info(f"{each}: written by `signllava eval`, skipped")
    return [each for each in given if each not in outputs]
