"""`signllava eval`: score predictions."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    predictions: Annotated[list[Path], typer.Argument(help="Predictions files, or the folders that hold them.")],
    out: Annotated[
        Path | None, typer.Option(help="Where scores.json goes. Default: beside the first predictions file.")
    ] = None,
) -> None:
    """Score predictions: BLEU-1..4, chrF2, ROUGE-L, exact match, accuracy on context-bound clips."""
    from signllava_cli.evaluation.score import score_files

    score_files(predictions, out)
