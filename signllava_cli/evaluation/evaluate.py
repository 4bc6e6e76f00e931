"""From files to scores: what `signllava eval` does."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.evaluation.outputs import Outputs, skip_outputs
from signllava_cli.evaluation.reporting.latex import latex_table
from signllava_cli.evaluation.reporting.terminal import print_evaluation
from signllava_cli.evaluation.scoring import Evaluation, Scoring, score_systems
from signllava_cli.evaluation.systems import (
    Missing,
    System,
    baseline_first,
    read_systems,
    read_texts,
    require_same_clips,
)
from signllava_cli.files import write_json, write_text


@dataclass(frozen=True)
class EvaluationInputs:
    """What is scored: `predictions`, or `texts` with `meant`, plain text; each is `FILE` or `NAME=FILE`.

    `references`: where those of the predictions are, if not in them. `missing`: whether clips without a hypothesis
    count as empty or are left out. `intersection`: score the clips of which all files have a hypothesis. `baseline`:
    the name of the system that the others are compared with; `None` for the default of `baseline_first`.
    """

    predictions: Sequence[str] = ()
    texts: Sequence[str] = ()
    meant: Path | None = None
    references: Path | None = None
    missing: Missing = "empty"
    intersection: bool = False
    baseline: str | None = None

    def read(self) -> list[System]:
        """The systems, on the same clips, the baseline first.

        Raises:
            UserError: a file is missing, damaged, unfinished, or of other clips than another.
        """
        if bool(self.texts) != (self.meant is not None):
            raise UserError("--hyp FILE and --ref FILE belong together.")
        if bool(self.texts) == bool(self.predictions):
            raise UserError("Name predictions files, or --hyp FILE with --ref FILE, and not both.")
        if self.meant is not None:
            return baseline_first(read_texts(self.texts, self.meant.expanduser()), self.baseline)
        systems = read_systems(skip_outputs(self.predictions), self.references, self.missing)
        return require_same_clips(baseline_first(systems, self.baseline), self.intersection)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in scores.json."""
        references = self.meant or self.references
        return {
            "references": None if references is None else str(references.absolute()),
            "missing": self.missing,
            "intersection": self.intersection,
        }


def generate_missing(
    runs: Sequence[str], sources: Sequence[str], split: str | None, overrides: Sequence[str]
) -> list[str]:
    """The predictions of a run under each of `sources`, as `SOURCE=FOLDER`; what is missing is generated first.

    Predictions made with other settings, such as another number of beams, are not taken, and not overwritten.

    Raises:
        UserError: `runs` are not one, or generation cannot be done.
    """
    from signllava_cli.generation.generate import generate  # imports torch: only who generates waits for it
    from signllava_cli.model.checkpoint import GENERATION_OVERRIDES, checkpoint_recipe, find_checkpoint

    if len(runs) != 1:
        raise UserError("--context-sources takes one run or checkpoint, whose predictions it makes.")
    checkpoint = find_checkpoint(Path(runs[0]))
    named = [] if split is None else [f"generate.split={json.dumps(split)}"]
    recipe = checkpoint_recipe(checkpoint, [*GENERATION_OVERRIDES, *overrides, *named])
    folders = generate(recipe, checkpoint, [source.strip() for source in sources], keep_others=True)
    kinds = [source.partition(":")[0].strip() for source in sources]  # of prepared:FILE, the first
    if len(set(kinds)) < len(kinds):
        return [str(folder) for folder in folders]
    return [f"{kind}={folder}" for kind, folder in zip(kinds, folders, strict=True)]


def evaluate(sources: EvaluationInputs, scoring: Scoring, outputs: Outputs) -> Evaluation:
    """Score, print, and write what was asked for; see `signllava eval --help`.

    Raises:
        UserError: something cannot be read, scored, or written.
    """
    systems = sources.read()
    scores = outputs.require_safe(systems, [sources.references, sources.meant, scoring.stop_list])
    evaluation = score_systems(systems, scoring)
    print_evaluation(evaluation)
    write_json(scores, {**evaluation.to_dict(), "sources": sources.to_dict(), "date": time.strftime("%F %T %z")})
    info(f"scores in {scores}")
    if outputs.latex is not None:
        write_text(outputs.latex, latex_table(evaluation))
        info(f"LaTeX table in {outputs.latex}")
    if outputs.report is not None:
        from signllava_cli.evaluation.reporting.html_report import write_report

        write_report(outputs.report, evaluation)
        info(f"report in {outputs.report}")
    if outputs.charts is not None:
        from signllava_cli.evaluation.reporting.score_charts import draw_charts

        info("charts: " + ", ".join(str(file) for file in draw_charts(evaluation, outputs.charts)))
    return evaluation
