"""How certain a score is, and whether one system is better than another: resampling of what was counted.

A resample is a vector of how often each unit is drawn, so the sums of all resamples are one matrix product. The units
are recordings, unless clips are asked for: clips of a recording share their signer, topic and context, and an
interval that takes them for independent is too narrow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.evaluation.metrics.base import CountedMetric, Scores

CHUNK_SIZE = 512  # a multiple of 32: numpy draws bits by words, so that portions draw what one call does
SEED = 12345  # sacreBLEU's, so that its own tests draw the same samples


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a figure over the resamples."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """System against baseline in one figure: the difference, its interval, and two-sided p-values.

    `bootstrap_p`: paired bootstrap, how often a resampled difference lies as far from the observed one as that lies
    from 0. `randomization_p`: paired approximate randomization (Riezler & Maxwell 2005), how often systems that swap
    units at random differ as much. The other two are sacreBLEU's, for comparison with what others report. Its
    bootstrap subtracts the mean of the differences' sizes, and so finds about twice as many chance differences
    significant as it should. Its randomization does not count differences that are as large, only larger ones: of few
    units, where many are equal, it finds everything significant.
    """

    difference: float
    interval: Interval
    bootstrap_p: float
    randomization_p: float
    sacrebleu_bootstrap_p: float
    sacrebleu_randomization_p: float


class ResamplingUnits:
    """The units that are resampled, for N clips.

    Args:
        of_clip: for each clip, the name of its unit: its recording, or itself.
    """

    def __init__(self, of_clip: Sequence[str]) -> None:
        names = {name: number for number, name in enumerate(dict.fromkeys(of_clip))}
        self.numbers = np.array([names[name] for name in of_clip])
        self.count = len(names)

    def bootstrap_weights(self, samples: int) -> Iterator[np.ndarray]:
        """How often each unit stands in each resample of as many units: float64 (some samples, units)."""
        rng = np.random.default_rng(SEED)
        for size in _chunk_sizes(samples):
            times = np.zeros((size, self.count))
            for sample, units in enumerate(rng.choice(self.count, size=(size, self.count), replace=True)):
                times[sample] = np.bincount(units, minlength=self.count)
            yield times

    def sides(self, trials: int) -> Iterator[np.ndarray]:
        """Whether each unit stays with the first of two systems in each trial: float64 (some trials, units)."""
        rng = np.random.default_rng(SEED)
        for size in _chunk_sizes(trials):
            yield rng.integers(2, size=(size, self.count), dtype=bool).astype(np.float64)

    def sums(self, counts: np.ndarray) -> np.ndarray:
        """Counts (N, K) of clips -> (units, K)."""
        summed = np.zeros((self.count, counts.shape[1]))
        np.add.at(summed, self.numbers, counts)
        return summed


def bootstrap_intervals(
    metric: CountedMetric, counts: np.ndarray, units: ResamplingUnits, samples: int
) -> dict[str, Interval]:
    """The bootstrap interval of each figure of `metric`, given its `counts` (N, K)."""
    sums = units.sums(counts)
    figures = _concatenate(metric.scores(times @ sums) for times in units.bootstrap_weights(samples))
    return {key: _percentile_interval(values) for key, values in figures.items() if key not in metric.numbers}


def compare_paired(
    metric: CountedMetric, baseline: np.ndarray, system: np.ndarray, units: ResamplingUnits, samples: int, trials: int
) -> dict[str, Comparison]:
    """`system` against `baseline`, both counts (N, K) of the same clips, in each figure of `metric`."""
    ours, theirs = units.sums(system), units.sums(baseline)
    observed = _differences(metric, ours.sum(axis=0), theirs.sum(axis=0))
    resampled = _concatenate(
        _differences(metric, times @ ours, times @ theirs) for times in units.bootstrap_weights(samples)
    )
    shuffled = _concatenate(
        _differences(metric, first @ theirs + (1 - first) @ ours, (1 - first) @ theirs + first @ ours)
        for first in units.sides(trials)
    )
    found = {}
    for key, difference in observed.items():
        if key in metric.numbers:
            continue
        size, sizes = abs(float(difference)), np.abs(resampled[key])
        found[key] = Comparison(
            difference=float(difference),
            interval=_percentile_interval(resampled[key]),
            bootstrap_p=_p_value(np.abs(resampled[key] - difference), size),
            randomization_p=_p_value(np.abs(shuffled[key]), size),
            sacrebleu_bootstrap_p=_sacrebleus_p_value(sizes - sizes.mean(), size),
            sacrebleu_randomization_p=_sacrebleus_p_value(np.abs(shuffled[key]), size),
        )
    return found


def _differences(metric: CountedMetric, ours: np.ndarray, theirs: np.ndarray) -> Scores:
    first, second = metric.scores(ours), metric.scores(theirs)
    return {key: first[key] - second[key] for key in first}


def _chunk_sizes(number: int) -> Iterator[int]:
    """`number` in portions that fit into memory: a product takes 8 bytes a unit and sample."""
    for start in range(0, number, CHUNK_SIZE):
        yield min(CHUNK_SIZE, number - start)


def _concatenate(parts: Iterable[Scores]) -> Scores:
    listed = list(parts)
    return {key: np.concatenate([part[key] for part in listed]) for key in listed[0]}


def _percentile_interval(values: np.ndarray) -> Interval:
    """The middle 95 %, by sacreBLEU's places: a fortieth of the sorted values is left out at each end.

    Resamples in which nothing was counted (NaN) tell nothing.
    """
    told = values[~np.isnan(values)]
    ordered, out = np.sort(told), len(told) // 40
    return Interval(float(ordered[out]), float(ordered[len(told) - out - 1]))


def _p_value(values: np.ndarray, observed: float) -> float:
    """The share of values as great as the observed one, which counts as one of them (Phipson & Smyth 2010)."""
    rounding = 1e-9 * max(1.0, observed)
    told = values[~np.isnan(values)]
    return float((np.sum(told >= observed - rounding) + 1) / (len(told) + 1))


def _sacrebleus_p_value(values: np.ndarray, observed: float) -> float:
    return float((np.sum(values > observed) + 1) / (len(values) + 1))
