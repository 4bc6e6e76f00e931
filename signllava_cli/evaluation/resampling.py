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


@dataclass(frozen=True)
class MeanComparison:
    """The mean of one score over the runs of a system compared with that over the runs of the baseline.

    The runs differ in their seeds. Interval and p-values are those of `Comparison`, for these runs: they say what
    other recordings might have given, not what other seeds might have. `randomization_p` is None if the baseline has
    another number of runs.
    """

    difference: float
    interval: Interval
    bootstrap_p: float
    randomization_p: float | None


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
    differences = _MeanDifferences(system.metric, [system.values], [baseline], units)
    resampled, swapped = differences.resampled(num_samples), differences.swapped(num_trials)
    comparisons = {}
    for key, mean in _compare(differences.observed(), resampled, swapped, system.metric).items():
        size, sizes = abs(mean.difference), np.abs(resampled[key])
        comparisons[key] = Comparison(
            **vars(mean),
            sacrebleu_bootstrap_p=_compute_sacrebleu_p_value(sizes - sizes.mean(), size),
            sacrebleu_randomization_p=_compute_sacrebleu_p_value(np.abs(swapped[key]), size),
        )
    return comparisons


def compare_means(
    metric: Metric,
    runs: Sequence[np.ndarray],
    baseline_runs: Sequence[np.ndarray],
    units: ResamplingUnits,
    *,
    num_samples: int,
    num_trials: int,
) -> dict[str, MeanComparison]:
    """Compare the mean of each score over the runs of a system with that over the runs of the baseline.

    Args:
        runs: statistics (N, K) of `metric` for each run, of the same clips as `baseline_runs`.
    """
    differences = _MeanDifferences(metric, runs, baseline_runs, units)
    swapped = differences.swapped(num_trials) if len(runs) == len(baseline_runs) else {}
    return _compare(differences.observed(), differences.resampled(num_samples), swapped, metric)


def _compare(observed: Scores, resampled: Scores, swapped: Scores, metric: Metric) -> dict[str, MeanComparison]:
    """The comparison of each score but counts, from its differences; `swapped` is empty without trials."""
    comparisons = {}
    for key, difference in observed.items():
        if key not in metric.count_keys:
            size = abs(float(difference))
            comparisons[key] = MeanComparison(
                difference=float(difference),
                interval=_compute_percentile_interval(resampled[key]),
                bootstrap_p=_compute_p_value(np.abs(resampled[key] - difference), size),
                randomization_p=_compute_p_value(np.abs(swapped[key]), size) if swapped else None,
            )
    return comparisons


class _MeanDifferences:
    """Differences of the mean scores of two groups of runs, from statistics (N, K) of each run."""

    def __init__(
        self,
        metric: Metric,
        runs: Sequence[np.ndarray],
        baseline_runs: Sequence[np.ndarray],
        units: ResamplingUnits,
    ) -> None:
        self.metric, self.units = metric, units
        self.runs = [units.sum_statistics(values) for values in runs]  # each (units, K)
        self.baseline_runs = [units.sum_statistics(values) for values in baseline_runs]

    def observed(self) -> Scores:
        return self._compute(
            [sums.sum(axis=0) for sums in self.runs], [sums.sum(axis=0) for sums in self.baseline_runs]
        )

    def resampled(self, num_samples: int) -> Scores:
        """In each resample, (num_samples,)."""
        return _concatenate(
            self._compute([weights @ sums for sums in self.runs], [weights @ sums for sums in self.baseline_runs])
            for weights in self.units.bootstrap_weights(num_samples)
        )

    def swapped(self, num_trials: int) -> Scores:
        """In each trial, (num_trials,), in which the groups swap units: the first runs with each other, and so on."""
        pairs = list(zip(self.runs, self.baseline_runs, strict=True))
        return _concatenate(
            self._compute(
                [mask @ baseline + (1 - mask) @ system for system, baseline in pairs],
                [(1 - mask) @ baseline + mask @ system for system, baseline in pairs],
            )
            for mask in self.units.randomization_masks(num_trials)
        )

    def _compute(self, runs: Sequence[np.ndarray], baseline_runs: Sequence[np.ndarray]) -> Scores:
        scores = [self.metric.compute_scores(sums) for sums in runs]
        baseline = [self.metric.compute_scores(sums) for sums in baseline_runs]
        return {key: _compute_mean(scores, key) - _compute_mean(baseline, key) for key in scores[0]}


def _compute_mean(scores: Sequence[Scores], key: str) -> np.ndarray:
    return np.mean([run[key] for run in scores], axis=0)


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
