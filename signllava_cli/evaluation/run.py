"""From files to scores: what `signllava eval` does."""

import json
from collections.abc import Sequence
from pathlib import Path

from signllava_cli.console import say
from signllava_cli.errors import UserError
from signllava_cli.evaluation.latex import latex_table
from signllava_cli.evaluation.presets import find_preset
from signllava_cli.evaluation.report import write_report
from signllava_cli.evaluation.score import SHOWN, Scored, Scoring, labels_of, score_systems
from signllava_cli.evaluation.systems import Missing, read_systems, read_text_pair, require_same_clips
from signllava_cli.files import write_text
from signllava_cli.model.checkpoint import FOR_GENERATION, find_checkpoint, recipe_of


def generated(
    runs: Sequence[Path], sources: Sequence[str], split: str | None, overrides: Sequence[str]
) -> list[Path]:
    """The predictions of a run under each of `sources`, in this order; what is missing is generated first.

    Raises:
        UserError: `runs` are not one, or generation cannot be done.
    """
    from signllava_cli.generation.generate import generate

    if len(runs) != 1:
        raise UserError("--context-sources takes one run or checkpoint, whose predictions it makes.")
    checkpoint = find_checkpoint(runs[0])
    named = [] if split is None else [f"generate.split={json.dumps(split)}"]
    recipe = recipe_of(checkpoint, [*FOR_GENERATION, *overrides, *named])
    return generate(recipe, checkpoint, [source.strip() for source in sources])


def evaluate_files(
    predictions: Sequence[Path],
    references: Path | None,
    text_pair: tuple[Path | None, Path | None],
    missing: Missing,
    intersection: bool,
    scoring: Scoring,
    out: Path | None,
    latex: Path | None,
    report: Path | None,
) -> list[Scored]:
    """Score `predictions`, or a pair of plain text files (hypotheses, references); see `signllava eval --help`.

    Args:
        out: the JSON file, or a folder for it; default: beside the first file.
        latex: where a table for a paper goes, if anywhere.
        report: where an HTML page goes, if anywhere.

    Raises:
        UserError: a file is missing, damaged, unfinished, or of other clips than the first.
    """
    hypotheses, meant = text_pair
    if (hypotheses is None) != (meant is None) or (hypotheses is None) == (not predictions):
        raise UserError("Name predictions files, or --hyp FILE with --ref FILE.")
    if hypotheses is not None and meant is not None:
        systems = [read_text_pair(hypotheses.expanduser(), meant.expanduser())]
    else:
        systems = require_same_clips(read_systems(predictions, references, missing), intersection)
    beside = systems[0].file.parent
    target = beside / "scores.json" if out is None else out / "scores.json" if out.is_dir() else out
    scored, content = score_systems(systems, scoring, target)
    keys = [key for key in SHOWN if key in scored[0].figures]
    if latex is not None:
        write_text(latex, latex_table(scored, keys, labels_of()))
        say(f"LaTeX table in {latex}")
    if report is not None:
        write_report(report, scored, content, keys, labels_of(), find_preset(scoring.preset))
        say(f"report in {report}")
    return scored
