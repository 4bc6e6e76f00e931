"""Confidence intervals, and tests of whether one system is better than another, by resampling statistics.

A resample is a vector of how often each unit is drawn, so the sums of all resamples are one matrix product. Units are
recordings by default, not clips: the clips of a recording share signer, topic and context, and an interval that
assumes them to be independent is too narrow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.evaluation.metrics.base import Metric, MetricStatistics, Scores

CHUNK_SIZE = 512  # a multiple of 32: numpy draws bits by 32-bit words, so chunks draw what a single call draws
SEED = 12345  # sacreBLEU's, so that its tests draw the same samples


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a score over the resamples."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One score of a system compared with the baseline: the difference, its interval, and two-sided p-values.

    `bootstrap_p`: paired bootstrap: how often the difference of a resample is as far from the observed difference as
    that is from 0. `randomization_p`: paired approximate randomization (Riezler & Maxwell 2005): how often the
    difference is as large if the systems swap units at random.

    The other two are sacreBLEU's, for comparison with reported results. Its bootstrap subtracts the mean of the
    absolute differences, and finds about twice as many chance differences significant as it should. Its randomization
    counts differences that are larger, not those that are equal: of few units, where many are equal, it finds
    everything significant.
    """

    difference: float
    interval: Interval
    bootstrap_p: float
    randomization_p: float
    sacrebleu_bootstrap_p: float
    sacrebleu_randomization_p: float


class ResamplingUnits:
    """The units that are resampled.

    Args:
        unit_names: for each of N clips, the name of its unit: its recording, or its own id.
    """

    def __init__(self, unit_names: Sequence[str]) -> None:
        indices = {name: index for index, name in enumerate(dict.fromkeys(unit_names))}
        self.indices = np.array([indices[name] for name in unit_names])  # (N,)
        self.num_units = len(indices)

    def bootstrap_weights(self, num_samples: int) -> Iterator[np.ndarray]:
        """How often each unit is drawn in each resample, in chunks: float64 (chunk, units)."""
        rng = np.random.default_rng(SEED)
        for size in _iterate_chunk_sizes(num_samples):
            weights = np.zeros((size, self.num_units))
            drawn_units = rng.choice(self.num_units, size=(size, self.num_units), replace=True)
            for sample, units in enumerate(drawn_units):
                weights[sample] = np.bincount(units, minlength=self.num_units)
            yield weights

    def randomization_masks(self, num_trials: int) -> Iterator[np.ndarray]:
        """1 for each unit that the systems swap in a trial, else 0, in chunks: float64 (chunk, units)."""
        rng = np.random.default_rng(SEED)
        for size in _iterate_chunk_sizes(num_trials):
            yield rng.integers(2, size=(size, self.num_units), dtype=bool).astype(np.float64)

    def sum_statistics(self, statistics: np.ndarray) -> np.ndarray:
        """Statistics of clips (N, K) -> of units (units, K)."""
        sums = np.zeros((self.num_units, statistics.shape[1]))
        np.add.at(sums, self.indices, statistics)
        return sums


def compute_bootstrap_intervals(
    statistics: MetricStatistics, units: ResamplingUnits, num_samples: int
) -> dict[str, Interval]:
    """The bootstrap interval of each score of a metric."""
    metric = statistics.metric
    sums = units.sum_statistics(statistics.values)  # (units, K)
    scores = _concatenate(metric.compute_scores(weights @ sums) for weights in units.bootstrap_weights(num_samples))
    return {
        key: _compute_percentile_interval(values) for key, values in scores.items() if key not in metric.count_keys
    }


def compare_paired(
    system: MetricStatistics, baseline: np.ndarray, units: ResamplingUnits, *, num_samples: int, num_trials: int
) -> dict[str, Comparison]:
    """Compare each score of `system` with the `baseline`, statistics (N, K) of the same metric and clips."""
    metric = system.metric
    system_sums, baseline_sums = units.sum_statistics(system.values), units.sum_statistics(baseline)  # (units, K)
    observed = _compute_differences(metric, system_sums.sum(axis=0), baseline_sums.sum(axis=0))
    resampled = _concatenate(
        _compute_differences(metric, weights @ system_sums, weights @ baseline_sums)
        for weights in units.bootstrap_weights(num_samples)
    )
    swapped = _concatenate(
        _compute_differences(
            metric, mask @ baseline_sums + (1 - mask) @ system_sums, (1 - mask) @ baseline_sums + mask @ system_sums
        )
        for mask in units.randomization_masks(num_trials)
    )
    comparisons = {}
    for key, difference in observed.items():
        if key in metric.count_keys:
            continue
        size, sizes = abs(float(difference)), np.abs(resampled[key])
        comparisons[key] = Comparison(
            difference=float(difference),
            interval=_compute_percentile_interval(resampled[key]),
            bootstrap_p=_compute_p_value(np.abs(resampled[key] - difference), size),
            randomization_p=_compute_p_value(np.abs(swapped[key]), size),
            sacrebleu_bootstrap_p=_compute_sacrebleu_p_value(sizes - sizes.mean(), size),
            sacrebleu_randomization_p=_compute_sacrebleu_p_value(np.abs(swapped[key]), size),
        )
    return comparisons


def _compute_differences(metric: Metric, system_sums: np.ndarray, baseline_sums: np.ndarray) -> Scores:
    system, baseline = metric.compute_scores(system_sums), metric.compute_scores(baseline_sums)
    return {key: system[key] - baseline[key] for key in system}


def _iterate_chunk_sizes(total: int) -> Iterator[int]:
    """`total` in chunks that fit into memory: weights take 8 bytes per unit and sample."""
    for start in range(0, total, CHUNK_SIZE):
        yield min(CHUNK_SIZE, total - start)


def _concatenate(chunks: Iterable[Scores]) -> Scores:
    chunks = list(chunks)
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _compute_percentile_interval(values: np.ndarray) -> Interval:
    """The middle 95 %, as in sacreBLEU: without 1/40 of the sorted values at each end.

    NaN values, of resamples in which nothing was counted, are ignored.
    """
    ordered = np.sort(values[~np.isnan(values)])
    num_cut = len(ordered) // 40
    return Interval(float(ordered[num_cut]), float(ordered[len(ordered) - num_cut - 1]))


def _compute_p_value(values: np.ndarray, observed: float) -> float:
    """The share of values at least as large as the observed one, which is one of them (Phipson & Smyth 2010)."""
    tolerance = 1e-9 * max(1.0, observed)
    values = values[~np.isnan(values)]
    return float((np.sum(values >= observed - tolerance) + 1) / (len(values) + 1))


def _compute_sacrebleu_p_value(values: np.ndarray, observed: float) -> float:
    return float((np.sum(values > observed) + 1) / (len(values) + 1))
