"""The analysis of a system: words, leaks, gains, scores by bucket."""

from collections.abc import Sequence
from typing import Any

import pytest

from signllava_cli.evaluation.analysis import analyze, compute_sentence_gains
from signllava_cli.evaluation.metrics.base import MetricStatistics
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf
from signllava_cli.generation.prediction import Prediction


def make_row(
    clip: int, reference: str, hypothesis: str, context: tuple[str, ...] = (), frames: int = 10
) -> Prediction:
    return Prediction("r", str(clip), clip, "translation", reference, hypothesis, list(context), frames=frames)


def analyze_rows(rows: Sequence[Prediction], preset_name: str = "how2sign") -> dict[str, Any]:
    preset = find_preset(preset_name)
    texts = [row.hypothesis for row in rows], [row.reference for row in rows]
    statistics = {
        key: MetricStatistics(metric, metric.extract_statistics(*texts))
        for key, metric in (("bleu4", Bleu(preset)), ("chrf2", Chrf(preset)))
    }
    return analyze(rows, statistics, preset.language)


ROWS = [
    make_row(0, "The doctor hides a coat.", "The doctor hides a coat."),
    make_row(1, "The sister buys a lamp.", "The doctor hides a coat.", ("The doctor hides a coat.",)),
    make_row(2, "Thank you.", "the a", ("The sister buys a lamp.", "Thank you."), frames=900),
    make_row(3, "A farmer paints the box in the garden today.", ""),
]


def test_the_analysis_of_four_clips_is_as_worked_out_by_hand() -> None:
    analysis = analyze_rows(ROWS)
    assert analysis["leaked_clips"] == ["r/2"]
    assert analysis["repeated_hypotheses"] == 50
    assert analysis["without_content_word"] == 75  # only the first has a word that one reference alone has
    assert ("lamp", 1) in analysis["missed_words"]
    assert ("coat", 1) in analysis["invented_words"]
    buckets = analysis["buckets"]
    assert {bucket: scores["clips"] for bucket, scores in buckets["context_sentences"].items()} == {
        "0": 2,
        "1": 1,
        "2": 1,
    }
    assert {bucket: scores["clips"] for bucket, scores in buckets["reference_words"].items()} == {
        "0-3": 1,
        "4-7": 2,
        "8-12": 1,
    }
    assert list(buckets["frames"]) == ["0-49", "800+"]
    assert buckets["position"]["0"]["bleu4"] == pytest.approx(100)
    assert buckets["recording"]["r"]["clips"] == 4


def test_gains_compare_each_clip_with_the_same_clip_of_the_baseline() -> None:
    better = [ROWS[0], make_row(1, "The sister buys a lamp.", "The sister buys a lamp."), ROWS[2], ROWS[3]]
    texts = [[row.hypothesis for row in rows] for rows in (better, ROWS)]
    references = [row.reference for row in ROWS]
    scores, baseline = (
        Chrf().compute_scores(Chrf().extract_statistics(hypotheses, references))["chrf2"] for hypotheses in texts
    )
    gains = compute_sentence_gains(better, scores, baseline)
    assert gains["r/0"] == gains["r/2"] == gains["r/3"] == 0
    assert gains["r/1"] > 50
    assert compute_sentence_gains(ROWS, baseline, scores)["r/1"] == -gains["r/1"]


def test_words_without_spaces_are_counted() -> None:
    analysis = analyze_rows([make_row(0, "我今天很好", "我很好"), make_row(1, "你好", "你好")], "csl-daily")
    assert analysis["missed_words"] == [("今", 1), ("天", 1)]
    assert list(analysis["buckets"]["reference_words"]) == ["0-3", "4-7"]


def test_function_words_are_not_among_the_missed_words() -> None:
    """English and German use stop lists, even for few clips; other languages use the share of references."""
    english = analyze_rows(
        [make_row(n, "Put the knife on the board, and it's to stay.", "and the to of spoon") for n in range(9)]
    )
    assert english["missed_words"] == [("put", 9), ("knife", 9), ("board", 9), ("stay", 9)]
    assert english["invented_words"] == [("spoon", 9)]
    german = analyze_rows(
        [make_row(n, "und der regen ist in der nacht", "und die sonne") for n in range(9)], "phoenix14t"
    )
    assert german["missed_words"] == [("regen", 9), ("nacht", 9)]  # in all references, but not in the stop list
    assert german["invented_words"] == [("sonne", 9)]
    chinese = analyze_rows(
        [make_row(n, "我的" + chr(0x5000 + n), "") for n in range(60)] + [make_row(60, "我书书书", "书桌")],
        "csl-daily",
    )
    assert chinese["missed_words"][0] == ("书", 2)
    assert not {"我", "的"} & {word for word, _ in chinese["missed_words"]}
    assert chinese["invented_words"] == [("桌", 1)]
