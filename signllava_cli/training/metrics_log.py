"""Read metrics.jsonl of a run as curves over the optimizer steps."""

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
    """The metrics of a run.

    `curves`: metric -> step -> value, by ascending step. If a step has two values (a resumed run repeats steps), the
    later one counts. `num_damaged`: lines that are not valid, for example after a power cut.
    """

    curves: dict[str, dict[int, float]]
    num_damaged: int


def read_metrics(file: Path) -> RunMetrics:
    """Read `file`, a metrics.jsonl; a missing file has no curves."""
    curves: dict[str, dict[int, float]] = {}
    num_damaged = 0
    if file.is_file():
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    metrics = json.loads(line)
                    step, values = int(metrics["step"]), numeric_values(metrics)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    num_damaged += 1
                    continue
                for name, value in values.items():
                    curves.setdefault(name, {})[step] = value
    return RunMetrics({name: dict(sorted(curve.items())) for name, curve in curves.items()}, num_damaged)


def read_runs(folders: Iterable[Path]) -> dict[str, RunMetrics]:
    """Read the metrics of run folders, by the name of the folder, or by its path if two names are the same.

    Raises:
        UserError: a folder is not a run folder, or its metrics hold no step yet.
    """
    folders = [folder.expanduser() for folder in folders]
    names = [folder.resolve().name for folder in folders]
    runs = {}
    for folder, name in zip(folders, names, strict=True):
        file = folder / METRICS
        if not file.is_file():
            raise UserError(
                f"{folder} is not a run folder: it has no {METRICS}; choose a folder such as runs/pretrain."
            )
        metrics = read_metrics(file)
        if not metrics.curves:
            raise UserError(f"{file} holds no step yet; wait for the first step, or plot without this run.")
        runs[name if names.count(name) == 1 else str(folder)] = metrics
    return runs


def numeric_values(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers among the metrics of a step: no lists of clips, no booleans, and not `step` itself."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


def exponential_moving_average(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average with `weight` for the past, bias-corrected at the start, as in TensorBoard.

    A value that is not finite does not change the average.
    """
    average = total_weight = 0.0
    averages = []
    for value in values:
        if math.isfinite(value):
            average = weight * average + (1 - weight) * value
            total_weight = weight * total_weight + (1 - weight)
        averages.append(average / total_weight if total_weight else math.nan)
    return averages
