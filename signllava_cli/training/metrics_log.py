"""What a run recorded: metrics.jsonl, read back as curves over the steps."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class RunMetrics:
    """`curves`: figure -> step -> value, by rising step. `damaged`: lines that hold no step, as a power cut leaves.

    Of a figure that a step has twice (a resumed run takes the step again) the later value stands.
    """

    curves: dict[str, dict[int, float]]
    damaged: int


def read_metrics(file: Path) -> RunMetrics:
    """The numbers in `file`, a metrics.jsonl; no curves where there is no file."""
    found: dict[str, dict[int, float]] = {}
    damaged = 0
    if file.is_file():
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    figures = json.loads(line)
                    step, values = int(figures["step"]), numeric_values(figures)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    damaged += 1
                    continue
                for name, value in values.items():
                    found.setdefault(name, {})[step] = value
    return RunMetrics({name: dict(sorted(curve.items())) for name, curve in found.items()}, damaged)


def read_runs(folders: Iterable[Path]) -> dict[str, RunMetrics]:
    """The records of some run folders, by the name of the folder, or by its whole path where names are the same.

    Raises:
        UserError: a folder is no run's, or its run has recorded no step.
    """
    folders = [folder.expanduser() for folder in folders]
    names = [folder.resolve().name for folder in folders]
    records = {}
    for folder, name in zip(folders, names, strict=True):
        file = folder / METRICS
        if not file.is_file():
            raise UserError(f"{folder} is not a run folder: there is no {METRICS}; name one such as runs/pretrain.")
        record = read_metrics(file)
        if not record.curves:
            raise UserError(f"{file} holds no step yet; wait for the run's first, or leave it out.")
        records[name if names.count(name) == 1 else str(folder)] = record
    return records


def numeric_values(figures: dict[str, Any]) -> dict[str, float]:
    """Those of a step's figures that can be drawn: no names of clips, no yes or no, and not the step itself."""
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


def exponential_moving_average(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average in which the past weighs `weight`, unbiased at its start, as TensorBoard's.

    A value that is not finite leaves it as it was.
    """
    average = mass = 0.0
    averages = []
    for value in values:
        if math.isfinite(value):
            average, mass = weight * average + (1 - weight) * value, weight * mass + (1 - weight)
        averages.append(average / mass if mass else math.nan)
    return averages
