"""Several runs of one system that differ in their seed: how much of a score is luck."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MeanDeviation:
    """A figure over several runs: its mean, and its standard deviation, that of a sample (n - 1)."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class SeedSummary:
    """A system of several runs: its name, theirs, and the spread of each figure that all of them have."""

    name: str
    runs: tuple[str, ...]
    scores: dict[str, MeanDeviation]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in scores.json."""
        return asdict(self)


def summarize_seeds(name: str, runs: Mapping[str, Mapping[str, float]]) -> SeedSummary:
    """The figures of `runs`, two or more, each by its name."""
    figures: Sequence[Mapping[str, float]] = list(runs.values())
    common = [key for key in figures[0] if all(key in each for each in figures)]
    spreads = {}
    for key in common:
        values = np.array([each[key] for each in figures])
        spreads[key] = MeanDeviation(float(values.mean()), float(values.std(ddof=1)))
    return SeedSummary(name, tuple(runs), spreads)
