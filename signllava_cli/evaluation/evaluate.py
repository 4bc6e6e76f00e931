"""From files to scores: what `signllava eval` does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.console import info, is_json, print_document
from signllava_cli.errors import UserError
from signllava_cli.evaluation.outputs import Outputs, skip_outputs
from signllava_cli.evaluation.reporting.latex import make_latex_table
from signllava_cli.evaluation.reporting.terminal import print_evaluation
from signllava_cli.evaluation.results import Evaluation, ScoringConfig
from signllava_cli.evaluation.scoring import score_systems
from signllava_cli.evaluation.system_files import MissingPolicy, read_systems, read_texts, warn_about_decoding
from signllava_cli.evaluation.systems import System, move_baseline_first, require_same_clips
from signllava_cli.files import write_json, write_text


@dataclass(frozen=True)
class EvaluationInputs:
    """What is scored: `predictions`, or plain text: `hypotheses` with `hypothesis_references`; `FILE` or `NAME=FILE`.

    `references`: a file with the references of the predictions, if they have none. `missing`: whether clips without a
    hypothesis count as empty or are excluded. `intersection`: score the clips of which all files have a hypothesis.
    `baseline`: the name of the baseline; `None` for the default of `move_baseline_first`.
    """

    predictions: Sequence[str] = ()
    hypotheses: Sequence[str] = ()
    hypothesis_references: Path | None = None
    references: Path | None = None
    missing: MissingPolicy = "empty"
    intersection: bool = False
    baseline: str | None = None

    def read(self) -> list[System]:
        """The systems, with the same clips, the baseline first.

        Raises:
            UserError: a file is missing, damaged or unfinished, or its clips differ from those of another.
        """
        if bool(self.hypotheses) != (self.hypothesis_references is not None):
            raise UserError("--hyp FILE needs --ref FILE, and vice versa.")
        if bool(self.hypotheses) == bool(self.predictions):
            raise UserError("Name either predictions files, or --hyp FILE with --ref FILE.")
        if self.hypothesis_references is not None:
            self._require_no_clip_options()
            systems = read_texts(self.hypotheses, self.hypothesis_references.expanduser())
            return move_baseline_first(systems, self.baseline)
        systems = read_systems(skip_outputs(self.predictions), self.references, self.missing)
        systems = require_same_clips(move_baseline_first(systems, self.baseline), self.intersection)
        warn_about_decoding(systems)
        return systems

    def _require_no_clip_options(self) -> None:
        """Check that plain texts, which have neither clip ids nor missing clips, come without options about these."""
        options = {
            "--references": self.references is not None,
            "--missing": self.missing != "empty",
            "--intersection": self.intersection,
        }
        if given := [option for option, is_given in options.items() if is_given]:
            raise UserError(
                f"--hyp is scored line by line with --ref; it cannot be combined with {' and '.join(given)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The entry `sources` of scores.json."""
        references = self.hypothesis_references or self.references
        return {
            "references": None if references is None else str(references.absolute()),
            "missing": self.missing,
            "intersection": self.intersection,
        }


def generate_missing(
    runs: Sequence[str], sources: Sequence[str], split: str | None, overrides: Sequence[str]
) -> list[str]:
    """The predictions of a run under each of `sources`, as `SOURCE=FOLDER`; missing ones are generated first.

    Predictions made with other settings, such as another number of beams, are neither used nor overwritten.

    Raises:
        UserError: `runs` has not exactly one run, or generation fails.
    """
    from signllava_cli.generation.generate import generate  # imports torch, which scoring does not need
    from signllava_cli.model.checkpoint import GENERATION_OVERRIDES, checkpoint_recipe, find_checkpoint
    from signllava_cli.recipe import format_override

    if len(runs) != 1:
        raise UserError("--context-sources needs exactly one run or checkpoint.")
    checkpoint = find_checkpoint(Path(runs[0]))
    split_override = [] if split is None else [format_override("generate.split", split)]
    recipe = checkpoint_recipe(checkpoint, [*GENERATION_OVERRIDES, *overrides, *split_override])
    folders = generate(recipe, checkpoint, [source.strip() for source in sources], keep_others=True)
    names = [source.partition(":")[0].strip() for source in sources]  # `prepared` of `prepared:FILE`
    if len(set(names)) < len(names):
        return [str(folder) for folder in folders]
    return [f"{name}={folder}" for name, folder in zip(names, folders, strict=True)]


def evaluate(inputs: EvaluationInputs, config: ScoringConfig, outputs: Outputs) -> Evaluation:
    """Score the inputs, print the results, and write the outputs; see `signllava eval --help`.

    Raises:
        UserError: an input cannot be read or scored, or an output cannot be written.
    """
    systems = inputs.read()
    data_files = [inputs.references, inputs.hypothesis_references, *config.metric_data.values()]
    scores_file = outputs.require_safe(systems, data_files)
    evaluation = score_systems(systems, config)
    document = {**evaluation.to_dict(), "sources": inputs.to_dict(), "date": time.strftime("%F %T %z")}
    if is_json():
        print_document(document)
    else:
        print_evaluation(evaluation)
    write_json(scores_file, document)
    info(f"scores in {scores_file}")
    if outputs.latex is not None:
        write_text(outputs.latex, make_latex_table(evaluation))
        info(f"LaTeX table in {outputs.latex}")
    if outputs.report is not None:
        from signllava_cli.evaluation.reporting.html_report import write_report

        write_report(outputs.report, evaluation)
        info(f"report in {outputs.report}")
    if outputs.charts is not None:
        from signllava_cli.evaluation.reporting.score_charts import draw_charts

        info("charts: " + ", ".join(str(file) for file in draw_charts(evaluation, outputs.charts)))
    return evaluation
