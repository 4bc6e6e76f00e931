"""What is told of a system beside its scores."""

from collections.abc import Sequence
from typing import Any

import pytest

from signllava_cli.evaluation.analysis import Counted, analyze, sentence_gains
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf
from signllava_cli.generation.prediction import Prediction


def row(clip: int, reference: str, hypothesis: str, context: tuple[str, ...] = (), frames: int = 10) -> Prediction:
    return Prediction("r", str(clip), clip, "translation", reference, hypothesis, list(context), frames=frames)


def facts_of(rows: Sequence[Prediction], preset: str = "how2sign") -> dict[str, Any]:
    read = find_preset(preset)
    texts = [row.hypothesis for row in rows], [row.reference for row in rows]
    counted = {
        key: Counted(metric, metric.counts(*texts)) for key, metric in (("bleu4", Bleu(read)), ("chrf2", Chrf(read)))
    }
    return analyze(rows, counted, read.language)


ROWS = [
    row(0, "The doctor hides a coat.", "The doctor hides a coat."),
    row(1, "The sister buys a lamp.", "The doctor hides a coat.", ("The doctor hides a coat.",)),
    row(2, "Thank you.", "the a", ("The sister buys a lamp.", "Thank you."), frames=900),
    row(3, "A farmer paints the box in the garden today.", ""),
]


def test_facts_of_a_small_file() -> None:
    facts = facts_of(ROWS)
    assert facts["leaked"] == ["r/2"]
    assert facts["repeated"] == 50
    assert facts["without_content_word"] == 75  # all but the first have no word that is theirs alone
    assert ("lamp", 1) in facts["missed"]
    assert ("coat", 1) in facts["invented"]
    by = facts["by"]
    assert {name: each["clips"] for name, each in by["context_sentences"].items()} == {"0": 2, "1": 1, "2": 1}
    assert {name: each["clips"] for name, each in by["reference_words"].items()} == {"0-3": 1, "4-7": 2, "8-12": 1}
    assert list(by["frames"]) == ["0-49", "800+"]
    assert by["position"]["0"]["bleu4"] == pytest.approx(100)
    assert by["recording"]["r"]["clips"] == 4


def test_gains_are_of_each_clip_against_the_same_clip() -> None:
    better = [ROWS[0], row(1, "The sister buys a lamp.", "The sister buys a lamp."), ROWS[2], ROWS[3]]
    texts = [[row.hypothesis for row in rows] for rows in (better, ROWS)]
    own, other = (Chrf().scores(Chrf().counts(said, [row.reference for row in ROWS]))["chrf2"] for said in texts)
    gained = sentence_gains(better, own, other)
    assert gained["r/0"] == gained["r/2"] == gained["r/3"] == 0
    assert gained["r/1"] > 50
    assert sentence_gains(ROWS, other, own)["r/1"] == -gained["r/1"]


def test_words_without_spaces_are_counted() -> None:
    facts = facts_of([row(0, "我今天很好", "我很好"), row(1, "你好", "你好")], "csl-daily")
    assert facts["missed"] == [("今", 1), ("天", 1)]
    assert list(facts["by"]["reference_words"]) == ["0-3", "4-7"]


def test_function_words_are_not_named_among_those_missed() -> None:
    """English and German by their stop lists, however few the clips; other languages by their share of the clips."""
    english = facts_of(
        [row(n, "Put the knife on the board, and it's to stay.", "and the to of spoon") for n in range(9)]
    )
    assert english["missed"] == [("put", 9), ("knife", 9), ("board", 9), ("stay", 9)]
    assert english["invented"] == [("spoon", 9)]
    german = facts_of([row(n, "und der regen ist in der nacht", "und die sonne") for n in range(9)], "phoenix14t")
    assert german["missed"] == [("regen", 9), ("nacht", 9)]  # in all clips, but what they are about
    assert german["invented"] == [("sonne", 9)]
    chinese = facts_of(
        [row(n, "我的" + chr(0x5000 + n), "") for n in range(60)] + [row(60, "我书书书", "书桌")], "csl-daily"
    )
    assert chinese["missed"][0] == ("书", 2)
    assert not {"我", "的"} & {word for word, _ in chinese["missed"]}
    assert chinese["invented"] == [("桌", 1)]
