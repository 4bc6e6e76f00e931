"""Intervals and comparisons: sacreBLEU's own where it has them, and honest about chance."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, _bootstrap_resample, estimate_ci

from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf, RougeL, Ter, TextMetric
from signllava_cli.evaluation.resampling import ResamplingUnits, bootstrap_intervals, compare_paired
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
PAIRS = [(Bleu(), BLEU(), "bleu4"), (Chrf(), CHRF(), "chrf2"), (Ter(), TER(), "ter")]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(1, 12)))) + "." for _ in range(count)]


def garbled(texts: list[str], share: float, seed: int) -> list[str]:
    """`texts` with that share of the words replaced, and now and then nothing left."""
    rng = np.random.default_rng(seed)
    return [
        ""
        if rng.random() < 0.02
        else " ".join(str(rng.choice(WORDS)) if rng.random() < share else w for w in t.split())
        for t in texts
    ]


REFERENCES = sentences(150, 0)
ONE, TWO = garbled(REFERENCES, 0.35, 1), garbled(REFERENCES, 0.30, 2)


@pytest.mark.parametrize(("ours", "theirs", "key"), PAIRS, ids=[key for *_, key in PAIRS])
def test_any_sum_scores_as_in_sacrebleu(ours: TextMetric, theirs: BLEU, key: str) -> None:
    """One clip alone, none that matches, empty ones, and many."""
    texts = [*ONE, "", "xyz", "the", REFERENCES[3]]
    counts = ours.counts(texts, [*REFERENCES, "a", "the man", "the", REFERENCES[3]])
    rng = np.random.default_rng(0)
    picks: list[Any] = [[150], [151], [152], [150, 151]]
    picks += [rng.integers(154, size=n) for n in (1, 1, 1, 2, 3, 5, 50) * 10]
    for pick in picks:
        expected = theirs._aggregate_and_compute([list(counts[row]) for row in pick]).score
        assert ours.scores(counts[pick].sum(axis=0))[key] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs", "key"), PAIRS, ids=[key for *_, key in PAIRS])
def test_resampling_clips_gives_sacrebleus_intervals_and_p_values(ours: TextMetric, theirs: BLEU, key: str) -> None:
    units = ResamplingUnits([str(n) for n in range(150)])
    one, two = ours.counts(ONE, REFERENCES), ours.counts(TWO, REFERENCES)
    _, resampled = _bootstrap_resample([list(row) for row in one], theirs, 1000)
    _, half_width = estimate_ci(np.array([each.score for each in resampled]))
    interval = bootstrap_intervals(ours, one, units, 1000)[key]
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, abs=1e-3)
    found = compare_paired(ours, one, two, units, samples=1000, trials=2000)[key]
    systems = [("one", ONE), ("two", TWO)]
    for kind, samples, p_value in (
        ("bs", 1000, found.sacrebleu_bootstrap_p),
        ("ar", 2000, found.sacrebleu_randomization_p),
    ):
        _, scores = PairedTest(systems, {"metric": theirs}, [REFERENCES], kind, samples)()
        (name,) = [name for name in scores if name != "System"]
        assert p_value == pytest.approx(scores[name][1].p_value, abs=1e-9)


def test_a_planted_difference_is_found_and_its_size_lies_in_the_interval() -> None:
    """200 clips of 40 recordings; the second system is better by 3 points of F1 on average."""
    rng = np.random.default_rng(0)
    units = ResamplingUnits([f"r{n // 5}" for n in range(200)])
    one = rng.normal(0.4, 0.1, 200) + np.repeat(rng.normal(0, 0.05, 40), 5)
    counts = [np.column_stack([each, np.ones(200)]) for each in (one, one + 0.03 + rng.normal(0, 0.05, 200))]
    found = compare_paired(RougeL(), counts[0], counts[1], units, samples=1000, trials=2000)["rougeL"]
    assert found.bootstrap_p < 0.01
    assert found.randomization_p < 0.01
    assert found.interval.low < 3.0 < found.interval.high
    assert found.interval.low > 0


def test_planted_nulls_are_found_significant_as_often_as_the_level_says() -> None:
    """200 pairs of equal systems at level 5 %: 10 are expected, 2 to 20 are within 99.7 % of the binomial.

    Clips of a recording share part of the difference, so an interval that took clips for independent would fail here.
    """
    units = ResamplingUnits([f"r{n // 8}" for n in range(320)])
    clips = ResamplingUnits([str(n) for n in range(320)])
    false = {"bootstrap": 0, "randomization": 0, "clips": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one = rng.normal(0.4, 0.1, 320)
        two = one + rng.normal(0, 0.05, 320) + np.repeat(rng.normal(0, 0.05, 40), 8)
        counts = [np.column_stack([each, np.ones(320)]) for each in (one, two)]
        found = compare_paired(RougeL(), counts[0], counts[1], units, samples=400, trials=400)["rougeL"]
        false["bootstrap"] += found.bootstrap_p < 0.05
        false["randomization"] += found.randomization_p < 0.05
        by_clip = compare_paired(RougeL(), counts[0], counts[1], clips, samples=100, trials=400)["rougeL"]
        false["clips"] += by_clip.randomization_p < 0.05
    assert 2 <= false["bootstrap"] <= 20, false
    assert 2 <= false["randomization"] <= 20, false
    assert false["clips"] > 20, false


def test_few_units_and_equal_systems_are_not_called_significant() -> None:
    """Four recordings can be shared out in 16 ways, of which 2 are as extreme as the best there is."""
    counts = [np.column_stack([np.full(40, score), np.ones(40)]) for score in (0.3, 0.4)]
    units = ResamplingUnits([f"r{n // 10}" for n in range(40)])
    found = compare_paired(RougeL(), counts[0], counts[1], units, samples=200, trials=5000)["rougeL"]
    assert found.difference == pytest.approx(10)
    assert found.randomization_p == pytest.approx(2 / 16, abs=0.02)
    same = compare_paired(RougeL(), counts[0], counts[0], units, samples=200, trials=200)["rougeL"]
    assert (same.bootstrap_p, same.randomization_p) == (1.0, 1.0)


def test_eval_compares_with_the_first_and_says_on_what_it_counts(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    for name, texts in (("one", ONE), ("two", TWO)):
        rows = [
            Prediction(f"r{n // 5}", str(n), n % 5, "translation", r, h)
            for n, (r, h) in enumerate(zip(REFERENCES, texts, strict=True))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--samples", 200, "--trials", 200, "--out", tmp_path / "s.json", "--latex", tmp_path / "t.tex"]
    ended = signllava("eval", tmp_path / "one.jsonl", tmp_path / "two.jsonl", *options)
    assert ended.code == 0, ended.err
    assert "200 bootstrap samples of recordings" in ended.out
    content = json.loads((tmp_path / "s.json").read_text())
    first, second = content["results"]
    assert first["against_first"] == {}
    assert second["against_first"]["bleu4"]["difference"] == pytest.approx(
        second["scores"]["bleu4"] - first["scores"]["bleu4"]
    )
    assert first["intervals"]["bleu4"]["low"] < first["scores"]["bleu4"] < first["intervals"]["bleu4"]["high"]
    assert (tmp_path / "t.tex").read_text().count(r"\\") == 3
