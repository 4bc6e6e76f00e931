"""From files to scores: what `signllava eval` does."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.console import say
from signllava_cli.errors import UserError
from signllava_cli.evaluation.score import Evaluation, Scoring, score_systems
from signllava_cli.evaluation.shown.latex import latex_table
from signllava_cli.evaluation.shown.tables import show
from signllava_cli.evaluation.systems import Missing, System, read_systems, read_texts, require_same_clips
from signllava_cli.files import read_json, write_json, write_text
from signllava_cli.generation.predictions import PREDICTIONS
from signllava_cli.model.checkpoint import FOR_GENERATION, find_checkpoint, recipe_of


@dataclass(frozen=True)
class Sources:
    """What is scored: `predictions`, or `texts` with `meant`, plain text; each is `FILE` or `NAME=FILE`.

    `references`: where those of the predictions are, if not in them. `missing`: whether clips without a hypothesis
    count as empty or are left out. `intersection`: score the clips of which all files have a hypothesis.
    """

    predictions: Sequence[str] = ()
    texts: Sequence[str] = ()
    meant: Path | None = None
    references: Path | None = None
    missing: Missing = "empty"
    intersection: bool = False

    def read(self) -> list[System]:
        """The systems, on the same clips.

        Raises:
            UserError: a file is missing, damaged, unfinished, or of other clips than the first.
        """
        if bool(self.texts) != (self.meant is not None):
            raise UserError("--hyp FILE and --ref FILE belong together.")
        if bool(self.texts) == bool(self.predictions):
            raise UserError("Name predictions files, or --hyp FILE with --ref FILE, and not both.")
        if self.meant is not None:
            return read_texts(self.texts, self.meant.expanduser())
        return require_same_clips(read_systems(self.predictions, self.references, self.missing), self.intersection)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in scores.json."""
        references = self.meant or self.references
        return {
            "references": None if references is None else str(references.absolute()),
            "missing": self.missing,
            "intersection": self.intersection,
        }


@dataclass(frozen=True)
class Outputs:
    """Where an evaluation goes: scores.json, and, if named, a LaTeX table, an HTML page, and a folder of charts.

    By default scores.json goes beside the first file; of folders of predictions side by side, into theirs.
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
            together = len(systems) > 1 and len(folders) == 1 and systems[0].file.name == PREDICTIONS
            scores = folders.pop() if together else systems[0].file.parent
        if scores.suffix.lower() != ".json":
            scores /= "scores.json"
        if scores.parent.is_file() or (scores.exists() and not _holds_scores(scores)):
            raise UserError(f"--out {self.scores} is there and holds no scores: choose another name.")
        for option, file, endings in (
            ("--latex", self.latex, (".tex",)),
            ("--report", self.report, (".html", ".htm")),
        ):
            if file is not None and (file.suffix.lower() not in endings or file.is_dir()):
                raise UserError(f"{option} {file}: give it the name of a file that ends in {endings[0]}.")
            if file is not None and file.exists() and not _is_ours(file):
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


def _is_ours(file: Path) -> bool:
    """Whether a table or a page begins as those that are written here."""
    with open(file, encoding="utf-8", errors="replace") as opened:
        beginning = opened.read(1000)
    return "hash of their ids" in beginning or "<title>signllava evaluation" in beginning


def generated(runs: Sequence[str], sources: Sequence[str], split: str | None, overrides: Sequence[str]) -> list[str]:
    """The predictions of a run under each of `sources`, as `SOURCE=FOLDER`; what is missing is generated first.

    Raises:
        UserError: `runs` are not one, or generation cannot be done.
    """
    from signllava_cli.generation.generate import generate

    if len(runs) != 1:
        raise UserError("--context-sources takes one run or checkpoint, whose predictions it makes.")
    checkpoint = find_checkpoint(Path(runs[0]))
    named = [] if split is None else [f"generate.split={json.dumps(split)}"]
    recipe = recipe_of(checkpoint, [*FOR_GENERATION, *overrides, *named])
    folders = generate(recipe, checkpoint, [source.strip() for source in sources])
    kinds = [source.partition(":")[0].strip() for source in sources]  # of prepared:FILE, the first
    if len(set(kinds)) < len(kinds):
        return [str(folder) for folder in folders]
    return [f"{kind}={folder}" for kind, folder in zip(kinds, folders, strict=True)]


def evaluate(sources: Sources, scoring: Scoring, outputs: Outputs) -> Evaluation:
    """Score, print, and write what was asked for; see `signllava eval --help`.

    Raises:
        UserError: something cannot be read, scored, or written.
    """
    systems = sources.read()
    scores = outputs.require_safe(systems, [sources.references, sources.meant, scoring.stop_list])
    evaluation = score_systems(systems, scoring)
    show(evaluation)
    write_json(scores, {**evaluation.to_dict(), "sources": sources.to_dict(), "date": time.strftime("%F %T %z")})
    say(f"scores in {scores}")
    if outputs.latex is not None:
        write_text(outputs.latex, latex_table(evaluation))
        say(f"LaTeX table in {outputs.latex}")
    if outputs.report is not None:
        from signllava_cli.evaluation.shown.report import write_report

        write_report(outputs.report, evaluation)
        say(f"report in {outputs.report}")
    if outputs.charts is not None:
        from signllava_cli.evaluation.shown.charts import draw_charts

        say("charts: " + ", ".join(str(file) for file in draw_charts(evaluation, outputs.charts)))
    return evaluation
