"""Intervals and p-values against their definitions, resample by resample."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from signllava_cli.evaluation import resampling
from signllava_cli.evaluation.metrics.base import Metric, MetricStatistics, Scores
from signllava_cli.evaluation.resampling import (
    Comparison,
    Interval,
    MeanComparison,
    ResamplingUnits,
    compare_means,
    compare_paired,
    compute_bootstrap_intervals,
)

NAMES = ["b", "a", "b", "c", "a", "b", "d"]  # the units of seven clips


class Mean(Metric):
    """The mean of a number over the clips that have one (NaN without any), its square, and their count."""

    labels: ClassVar = {"mean": "mean", "square": "square", "clips": "clips"}
    count_keys: ClassVar = frozenset({"clips"})

    def compute_scores(self, sums: np.ndarray) -> Scores:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums[..., 0] / sums[..., 1]
        return {"clips": sums[..., 1], "mean": mean, "square": mean**2}


def statistics(values: Sequence[float], counts: Sequence[int] = (1,) * 7) -> np.ndarray:
    return np.column_stack([np.array(values) * counts, counts]).astype(np.float64)


ONE = statistics([1, 4, 2, 8, 3, 5, 9])
TWO = statistics([2, 4, 3, 7, 6, 5, 9.5])


def collect(chunks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(chunks))


def test_the_statistics_of_a_unit_are_the_sums_of_its_clips() -> None:
    units = ResamplingUnits(NAMES)
    assert units.num_units == 4
    assert units.sum_statistics(ONE).tolist() == [[8, 3], [7, 2], [8, 1], [9, 1]]  # b, a, c, d


def test_each_resample_draws_as_many_units_as_there_are_the_same_ones_as_sacrebleu() -> None:
    units = ResamplingUnits(NAMES)
    expected = np.random.default_rng(12345).choice(4, size=(1100, 4), replace=True)
    weights = collect(units.bootstrap_weights(1100))
    assert weights.dtype == np.float64
    assert weights.tolist() == [np.bincount(row, minlength=4).tolist() for row in expected]


def test_each_unit_is_swapped_in_half_of_the_trials_the_same_ones_as_sacrebleu() -> None:
    units = ResamplingUnits(NAMES)
    masks = collect(units.randomization_masks(1100))
    assert masks.dtype == np.float64
    assert masks.tolist() == np.random.default_rng(12345).integers(2, size=(1100, 4), dtype=bool).tolist()


def test_weights_come_in_chunks_that_bound_the_memory() -> None:
    units = ResamplingUnits(NAMES)
    for chunks in (units.bootstrap_weights(1100), units.randomization_masks(1100)):
        assert [len(chunk) for chunk in chunks] == [512, 512, 76]


@pytest.mark.parametrize("num_samples", [39, 40, 79, 200])
def test_an_interval_leaves_out_a_fortieth_at_each_end(num_samples: int) -> None:
    units = ResamplingUnits(NAMES)
    intervals = compute_bootstrap_intervals(MetricStatistics(Mean(), ONE), units, num_samples)
    assert list(intervals) == ["mean", "square"]  # counts have no interval
    sums = collect(units.bootstrap_weights(num_samples)) @ units.sum_statistics(ONE)
    means = sorted((sums[:, 0] / sums[:, 1]).tolist())
    cut = num_samples // 40
    assert intervals["mean"] == Interval(means[cut], means[-1 - cut])
    assert intervals["square"] == pytest.approx(Interval(means[cut] ** 2, means[-1 - cut] ** 2)) or intervals[
        "square"
    ] == Interval(means[cut] ** 2, means[-1 - cut] ** 2)


def test_resamples_without_a_counted_clip_are_ignored() -> None:
    """One unit of three has all counted clips, so a resample without it has no score."""
    units = ResamplingUnits(["a", "b", "c"])
    one, two = (np.array([[value, 1.0], [0, 0], [0, 0]]) for value in (3.0, 5.0))
    assert compute_bootstrap_intervals(MetricStatistics(Mean(), one), units, 60)["mean"] == Interval(3.0, 3.0)
    comparison = compare_paired(MetricStatistics(Mean(), two), one, units, num_samples=60, num_trials=60)["mean"]
    assert comparison.interval == Interval(2.0, 2.0)
    drawn = int((collect(units.bootstrap_weights(60))[:, 0] > 0).sum())
    assert comparison.bootstrap_p == pytest.approx(1 / (drawn + 1))


def slow_comparison(system: np.ndarray, baseline: np.ndarray, num_samples: int, num_trials: int) -> Comparison:
    """The definitions, written out for the mean; every resample and trial is a loop over the clips."""
    units, names = ResamplingUnits(NAMES), list(dict.fromkeys(NAMES))

    def mean(rows: list[np.ndarray]) -> float:
        return float(sum(row[0] for row in rows) / sum(row[1] for row in rows))

    observed = mean(list(system)) - mean(list(baseline))
    resampled, swapped = [], []
    for weights in collect(units.bootstrap_weights(num_samples)):
        drawn = [clip for clip, name in enumerate(NAMES) for _ in range(int(weights[names.index(name)]))]
        resampled.append(mean([system[clip] for clip in drawn]) - mean([baseline[clip] for clip in drawn]))
    for mask in collect(units.randomization_masks(num_trials)):
        swaps = [bool(mask[names.index(name)]) for name in NAMES]
        first = [baseline[clip] if swap else system[clip] for clip, swap in enumerate(swaps)]
        second = [system[clip] if swap else baseline[clip] for clip, swap in enumerate(swaps)]
        swapped.append(mean(first) - mean(second))
    size, ordered, cut = abs(observed), sorted(resampled), num_samples // 40
    tolerance = 1e-9 * max(1.0, size)
    mean_size = sum(map(abs, resampled)) / num_samples
    return Comparison(
        difference=observed,
        interval=Interval(ordered[cut], ordered[-1 - cut]),
        bootstrap_p=(sum(abs(r - observed) >= size - tolerance for r in resampled) + 1) / (num_samples + 1),
        randomization_p=(sum(abs(s) >= size - tolerance for s in swapped) + 1) / (num_trials + 1),
        sacrebleu_bootstrap_p=(sum(abs(r) - mean_size > size for r in resampled) + 1) / (num_samples + 1),
        sacrebleu_randomization_p=(sum(abs(s) > size for s in swapped) + 1) / (num_trials + 1),
    )


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_comparison_follows_its_definitions(is_reversed: bool, scale: float) -> None:
    system, baseline = (ONE, TWO) if is_reversed else (TWO, ONE)
    system, baseline = system * [scale, 1], baseline * [scale, 1]
    comparisons = compare_paired(
        MetricStatistics(Mean(), system), baseline, ResamplingUnits(NAMES), num_samples=150, num_trials=90
    )
    assert list(comparisons) == ["mean", "square"]
    ours, expected = comparisons["mean"], slow_comparison(system, baseline, 150, 90)
    for name, value in vars(expected).items():
        if name == "interval":
            assert (ours.interval.low, ours.interval.high) == pytest.approx((value.low, value.high))
        else:
            assert getattr(ours, name) == pytest.approx(value), name


def test_equal_differences_are_as_large_as_the_observed_one_despite_rounding() -> None:
    """Of two units, half of the trials give the observed difference up to rounding, the others its opposite or 0."""
    one = np.array([[0.1, 1.0], [0.7, 1.0]])
    for scale in (1.0, 1e6):
        system = np.array([[0.3, 1.0], [0.7, 1.0]])
        comparison = compare_paired(
            MetricStatistics(Mean(), system * [scale, 1]),
            one * [scale, 1],
            ResamplingUnits(["a", "b"]),
            num_samples=50,
            num_trials=200,
        )["mean"]
        assert comparison.randomization_p == 1.0


def test_p_values_count_values_at_least_as_large_up_to_a_billionth() -> None:
    values = np.array([0.5, 1.0, 1.0 - 0.5e-9, 1.0 - 2e-9, np.nan, 3.0])
    assert resampling._compute_p_value(values, 1.0) == (3 + 1) / (5 + 1)
    assert resampling._compute_p_value(np.array([0.5 - 0.5e-9, 0.2]), 0.5) == 2 / 3
    assert resampling._compute_p_value(np.array([100 - 0.5e-7, 100 - 2e-7]), 100.0) == 2 / 3
    assert resampling._compute_p_value(np.array([1.0 - 1e-9]), 1.0) == 1.0
    assert resampling._compute_sacrebleu_p_value(np.array([0.5, 1.0, 1.5]), 1.0) == 2 / 4


def test_means_over_runs_are_compared_like_single_runs_resample_by_resample() -> None:
    units, three = ResamplingUnits(NAMES), statistics([3, 4, 1, 8, 2, 6, 9])
    runs, baseline = [TWO, three], [ONE, ONE]
    result = compare_means(Mean(), runs, baseline, units, num_samples=80, num_trials=70)
    assert list(result) == ["mean", "square"]

    def difference(groups: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """The difference of the mean squares of two groups of summed statistics, each (..., 2)."""
        one, two = ([Mean().compute_scores(sums)["square"] for sums in group] for group in groups)
        return np.asarray(sum(one) / len(one) - sum(two) / len(two))

    sums = [[units.sum_statistics(values) for values in group] for group in (runs, baseline)]
    observed = float(difference([[values.sum(axis=0) for values in group] for group in (runs, baseline)]))
    weights, masks = collect(units.bootstrap_weights(80)), collect(units.randomization_masks(70))
    resampled = difference([[weights @ values for values in group] for group in sums])
    first = [masks @ other + (1 - masks) @ own for own, other in zip(*sums, strict=True)]
    second = [masks @ own + (1 - masks) @ other for own, other in zip(*sums, strict=True)]
    swapped = difference([first, second])
    ordered, approx = np.sort(resampled), cast(Any, pytest.approx)
    assert result["square"] == MeanComparison(
        difference=approx(observed),
        interval=Interval(approx(ordered[2]), approx(ordered[77])),
        bootstrap_p=approx((np.sum(np.abs(resampled - observed) >= abs(observed) - 1e-9) + 1) / 81),
        randomization_p=approx((np.sum(np.abs(swapped) >= abs(observed) - 1e-9) + 1) / 71),
    )
    alone = compare_means(Mean(), runs, [ONE], units, num_samples=80, num_trials=70)["square"]
    assert (alone.difference, alone.randomization_p) == (pytest.approx(observed), None)
