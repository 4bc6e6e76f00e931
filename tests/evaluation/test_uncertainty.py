"""Intervals and comparisons: equal to sacreBLEU's where it has them, and calibrated for chance differences."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, _bootstrap_resample, estimate_ci

from signllava_cli.evaluation.metrics.base import MetricStatistics, TextMetric
from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf, RougeL, Ter
from signllava_cli.evaluation.resampling import (
    Comparison,
    ResamplingUnits,
    compare_means,
    compare_paired,
    compute_bootstrap_intervals,
)
from signllava_cli.generation.prediction import Prediction

WORDS = [
    "the",
    "a",
    "man",
    "woman",
    "child",
    "sees",
    "gives",
    "book",
    "house",
    "tree",
    "on",
    "under",
    "and",
    "slowly",
]
METRIC_PAIRS = [(Bleu(), BLEU(), "bleu4"), (Chrf(), CHRF(), "chrf2"), (Ter(), TER(), "ter")]
METRIC_KEYS = [key for *_, key in METRIC_PAIRS]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(1, 12)))) + "." for _ in range(count)]


def corrupt(texts: list[str], share: float, seed: int) -> list[str]:
    """`texts` with that share of the words replaced; one in fifty becomes empty."""
    rng = np.random.default_rng(seed)
    return [
        ""
        if rng.random() < 0.02
        else " ".join(str(rng.choice(WORDS)) if rng.random() < share else w for w in t.split())
        for t in texts
    ]


REFERENCES = sentences(150, 0)
ONE, TWO = corrupt(REFERENCES, 0.35, 1), corrupt(REFERENCES, 0.30, 2)


def compare_sentences(
    baseline: np.ndarray, system: np.ndarray, units: ResamplingUnits, *, num_samples: int, num_trials: int
) -> Comparison:
    """Compare two systems by their sentence scores (N,), as those of ROUGE-L."""
    statistics = [np.column_stack([scores, np.ones(len(scores))]) for scores in (baseline, system)]
    comparisons = compare_paired(
        MetricStatistics(RougeL(), statistics[1]),
        statistics[0],
        units,
        num_samples=num_samples,
        num_trials=num_trials,
    )
    return comparisons["rougeL"]


@pytest.mark.parametrize(("metric", "sacrebleu_metric", "key"), METRIC_PAIRS, ids=METRIC_KEYS)
def test_scores_of_summed_statistics_equal_sacrebleu(metric: TextMetric, sacrebleu_metric: BLEU, key: str) -> None:
    """For a single clip, clips without matches, empty clips, and many clips."""
    hypotheses = [*ONE, "", "xyz", "the", REFERENCES[3]]
    statistics = metric.extract_statistics(hypotheses, [*REFERENCES, "a", "the man", "the", REFERENCES[3]])
    rng = np.random.default_rng(0)
    samples: list[Any] = [
        [150],
        [151],
        [152],
        [150, 151],
        *(rng.integers(154, size=n) for n in (1, 1, 1, 2, 3, 5, 50) * 10),
    ]
    for indices in samples:
        expected = sacrebleu_metric._aggregate_and_compute([list(statistics[index]) for index in indices]).score
        score = metric.compute_scores(statistics[indices].sum(axis=0))[key]
        assert score == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("metric", "sacrebleu_metric", "key"), METRIC_PAIRS, ids=METRIC_KEYS)
def test_resampling_clips_gives_the_intervals_and_p_values_of_sacrebleu(
    metric: TextMetric, sacrebleu_metric: BLEU, key: str
) -> None:
    units = ResamplingUnits([str(n) for n in range(150)])
    one, two = metric.extract_statistics(ONE, REFERENCES), metric.extract_statistics(TWO, REFERENCES)
    _, resampled = _bootstrap_resample([list(row) for row in one], sacrebleu_metric, 1000)
    _, half_width = estimate_ci(np.array([result.score for result in resampled]))
    interval = compute_bootstrap_intervals(MetricStatistics(metric, one), units, 1000)[key]
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, abs=1e-3)
    comparison = compare_paired(MetricStatistics(metric, two), one, units, num_samples=1000, num_trials=2000)[key]
    systems = [("one", ONE), ("two", TWO)]
    for test_type, num_samples, p_value in (
        ("bs", 1000, comparison.sacrebleu_bootstrap_p),
        ("ar", 2000, comparison.sacrebleu_randomization_p),
    ):
        _, scores = PairedTest(systems, {"metric": sacrebleu_metric}, [REFERENCES], test_type, num_samples)()
        (name,) = [name for name in scores if name != "System"]
        assert p_value == pytest.approx(scores[name][1].p_value, abs=1e-9)


def test_a_true_difference_is_significant_and_within_its_interval() -> None:
    """200 clips of 40 recordings; the second system is better by 3 points of F1 on average."""
    rng = np.random.default_rng(0)
    units = ResamplingUnits([f"r{n // 5}" for n in range(200)])
    one = rng.normal(0.4, 0.1, 200) + np.repeat(rng.normal(0, 0.05, 40), 5)
    two = one + 0.03 + rng.normal(0, 0.05, 200)
    comparison = compare_sentences(one, two, units, num_samples=1000, num_trials=2000)
    assert comparison.bootstrap_p < 0.01
    assert comparison.randomization_p < 0.01
    assert comparison.interval.low < 3.0 < comparison.interval.high
    assert comparison.interval.low > 0


def test_chance_differences_are_significant_as_often_as_the_level_says() -> None:
    """200 pairs of equal systems at the level 5 %: 10 are expected, 2 to 20 are within 99.7 % of the binomial.

    Clips of a recording share part of the difference, so resampling clips finds more: an interval that assumes
    independent clips would fail here.
    """
    units = ResamplingUnits([f"r{n // 8}" for n in range(320)])
    clips = ResamplingUnits([str(n) for n in range(320)])
    num_significant = {"bootstrap": 0, "randomization": 0, "clips": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one = rng.normal(0.4, 0.1, 320)
        two = one + rng.normal(0, 0.05, 320) + np.repeat(rng.normal(0, 0.05, 40), 8)
        comparison = compare_sentences(one, two, units, num_samples=400, num_trials=400)
        by_clip = compare_sentences(one, two, clips, num_samples=100, num_trials=400)
        num_significant["bootstrap"] += comparison.bootstrap_p < 0.05
        num_significant["randomization"] += comparison.randomization_p < 0.05
        num_significant["clips"] += by_clip.randomization_p < 0.05
    assert 2 <= num_significant["bootstrap"] <= 20, num_significant
    assert 2 <= num_significant["randomization"] <= 20, num_significant
    assert num_significant["clips"] > 20, num_significant


def test_few_units_and_equal_systems_are_not_significant() -> None:
    """Four recordings can be swapped in 16 ways, of which 2 are as extreme as the observed one."""
    low, high = np.full(40, 0.3), np.full(40, 0.4)
    units = ResamplingUnits([f"r{n // 10}" for n in range(40)])
    comparison = compare_sentences(low, high, units, num_samples=200, num_trials=5000)
    assert comparison.difference == pytest.approx(10)
    assert comparison.randomization_p == pytest.approx(2 / 16, abs=0.02)
    equal = compare_sentences(low, low, units, num_samples=200, num_trials=200)
    assert (equal.bootstrap_p, equal.randomization_p) == (1.0, 1.0)


def test_eval_compares_with_the_first_system_and_prints_the_units(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    for name, texts in (("one", ONE), ("two", TWO)):
        rows = [
            Prediction(f"r{n // 5}", str(n), n % 5, "translation", r, h)
            for n, (r, h) in enumerate(zip(REFERENCES, texts, strict=True))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--samples", 200, "--trials", 200, "--out", tmp_path / "s.json", "--latex", tmp_path / "t.tex"]
    process = signllava("eval", tmp_path / "one.jsonl", tmp_path / "two.jsonl", *options)
    assert process.code == 0, process.err
    assert "200 bootstrap samples of recordings" in process.out
    content = json.loads((tmp_path / "s.json").read_text())
    baseline, second = content["results"]
    assert baseline["against_baseline"] == {}
    assert second["against_baseline"]["bleu4"]["difference"] == pytest.approx(
        second["scores"]["bleu4"] - baseline["scores"]["bleu4"]
    )
    assert (
        baseline["intervals"]["bleu4"]["low"] < baseline["scores"]["bleu4"] < baseline["intervals"]["bleu4"]["high"]
    )
    assert (tmp_path / "t.tex").read_text().count(r"\\") == 3


def sentence_statistics(scores: np.ndarray) -> np.ndarray:
    """The statistics of RougeL of clips whose F is `scores` (N,): float64 (N, 2)."""
    return np.column_stack([scores, np.ones(len(scores))])


def test_the_mean_over_one_run_is_compared_like_that_run() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.normal(0.4, 0.1, 200), rng.normal(0.45, 0.1, 200)
    units = ResamplingUnits([f"r{n // 5}" for n in range(200)])
    pair = compare_sentences(one, two, units, num_samples=300, num_trials=300)
    statistics = [sentence_statistics(two)], [sentence_statistics(one)]
    mean = compare_means(RougeL(), *statistics, units, num_samples=300, num_trials=300)["rougeL"]
    assert (mean.difference, mean.interval, mean.bootstrap_p, mean.randomization_p) == (
        pair.difference,
        pair.interval,
        pair.bootstrap_p,
        pair.randomization_p,
    )


def test_chance_differences_of_means_are_significant_as_often_as_the_level_says() -> None:
    """200 pairs of systems with three seeds each, whose expected scores are equal; clips of a recording depend."""
    units = ResamplingUnits([f"r{n // 8}" for n in range(240)])
    num_significant = {"bootstrap": 0, "randomization": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        difficulty = np.repeat(rng.normal(0.4, 0.1, 30), 8)

        def draw_runs() -> list[np.ndarray]:
            shared = np.repeat(rng.normal(0, 0.05, 30), 8)  # noqa: B023 (called in this turn of the loop)
            return [sentence_statistics(difficulty + shared + rng.normal(0, 0.05, 240)) for _ in range(3)]  # noqa: B023

        comparison = compare_means(RougeL(), draw_runs(), draw_runs(), units, num_samples=400, num_trials=400)
        num_significant["bootstrap"] += comparison["rougeL"].bootstrap_p < 0.05
        randomization_p = comparison["rougeL"].randomization_p
        assert randomization_p is not None
        num_significant["randomization"] += randomization_p < 0.05
    assert 2 <= num_significant["bootstrap"] <= 22, num_significant
    assert 2 <= num_significant["randomization"] <= 20, num_significant


def test_means_of_different_numbers_of_runs_have_no_randomization() -> None:
    units = ResamplingUnits([str(n) for n in range(40)])
    high, low = sentence_statistics(np.full(40, 0.5)), sentence_statistics(np.full(40, 0.2))
    comparison = compare_means(RougeL(), [high, low], [low], units, num_samples=100, num_trials=100)["rougeL"]
    assert comparison.difference == pytest.approx(15)
    assert comparison.randomization_p is None
