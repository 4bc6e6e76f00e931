"""The files that `signllava eval` writes, and how they are recognized among its inputs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.evaluation.system_files import split_name
from signllava_cli.evaluation.systems import System
from signllava_cli.files import read_json
from signllava_cli.generation.predictions_folder import PREDICTIONS_FILE

HTML_SUFFIXES = (".html", ".htm")
CHART_NAME = re.compile(r"(scores|gains|by-[a-z-]+)\.png")


@dataclass(frozen=True)
class Outputs:
    """The files to write: scores.json always; a LaTeX table, an HTML page and a folder of charts if they are named.

    By default scores.json is written beside the file of the baseline; for several folders of predictions in one
    folder, into that folder.
    """

    scores: Path | None = None
    latex: Path | None = None
    report: Path | None = None
    charts: Path | None = None

    def require_safe(self, systems: Sequence[System], inputs: Sequence[Path | None]) -> Path:
        """Check that only earlier output will be overwritten; returns the path of scores.json.

        Raises:
            UserError: a path is that of an input or of another file, or has another suffix than its option needs.
        """
        scores = self._choose_scores_file(systems)
        if scores.parent.is_file() or (scores.exists() and not _has_scores(scores)):
            raise UserError(f"{scores} exists and is not a scores file of signllava: choose another name with --out.")
        for option, file, suffixes in (
            ("--latex", self.latex, (".tex",)),
            ("--report", self.report, HTML_SUFFIXES),
        ):
            if file is not None and (file.suffix.lower() not in suffixes or file.is_dir()):
                raise UserError(f"{option} {file}: choose a file name that ends in {suffixes[0]}.")
            if file is not None and file.exists() and not _is_eval_output(file):
                raise UserError(f"{option} {file} exists and is not output of `signllava eval`: choose another name.")
        input_files = (*(system.file for system in systems), *inputs)
        resolved = {file.expanduser().resolve() for file in input_files if file is not None}
        for file in (scores, self.latex, self.report):
            if file is not None and file.resolve() in resolved:
                raise UserError(f"{file} is an input and is not overwritten: choose another name.")
        if self.charts is not None and self.charts.exists() and not self.charts.is_dir():
            raise UserError(f"--charts {self.charts} is a file; name a folder.")
        return scores

    def _choose_scores_file(self, systems: Sequence[System]) -> Path:
        path = self.scores
        if path is None:
            folders = {system.file.parent.parent for system in systems}
            in_one_folder = len(systems) > 1 and len(folders) == 1 and systems[0].file.name == PREDICTIONS_FILE
            path = folders.pop() if in_one_folder else systems[0].file.parent
        return path if path.suffix.lower() == ".json" else path / "scores.json"


def _has_scores(file: Path) -> bool:
    try:
        return {"results", "signatures", "versions"} <= read_json(file).keys()
    except UserError:
        return False


def _is_eval_output(file: Path) -> bool:
    """Whether the first characters of a file are those of a LaTeX table or a page of `signllava eval`."""
    with open(file, encoding="utf-8", errors="replace") as handle:
        head = handle.read(1000)
    return "hash of their ids" in head or "<title>signllava evaluation" in head


def is_output(path: Path) -> bool:
    """Whether `signllava eval` wrote `path`: scores, a LaTeX table, a page, a chart, or a folder of only these."""
    if path.is_dir():
        entries = list(path.iterdir())
        return bool(entries) and all(map(is_output, entries))
    if path.suffix.lower() == ".json":
        return _has_scores(path)
    if path.suffix.lower() in (*HTML_SUFFIXES, ".tex"):
        return path.is_file() and _is_eval_output(path)
    return CHART_NAME.fullmatch(path.name) is not None


def skip_outputs(arguments: Sequence[str]) -> list[str]:
    """`arguments`, each `FILE` or `NAME=FILE`, without earlier output of `signllava eval`, each of which is printed.

    So `predictions/*` can be scored again although scores.json is there.

    Raises:
        UserError: output has a NAME, or all arguments are output.
    """
    outputs = [argument for argument in arguments if is_output(split_name(argument)[1])]
    if named := [argument for argument in outputs if split_name(argument)[0] is not None]:
        raise UserError(f"{named[0]}: written by `signllava eval`; name predictions.")
    if outputs and len(outputs) == len(arguments):
        raise UserError(f"{outputs[0]}: written by `signllava eval`, and there are no predictions; name some.")
    for argument in outputs:
        info(f"{argument}: written by `signllava eval`, skipped")
    return [argument for argument in arguments if argument not in outputs]
