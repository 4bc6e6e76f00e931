"""What is told of a system beside its scores."""

import pytest

from signllava_cli.evaluation.behaviour import behaviour, gains
from signllava_cli.evaluation.metrics.presets import Preset
from signllava_cli.generation.prediction import Prediction


def row(clip: int, reference: str, hypothesis: str, context: tuple[str, ...] = (), frames: int = 10) -> Prediction:
    return Prediction("r", str(clip), clip, "translation", reference, hypothesis, list(context), frames=frames)


ROWS = [
    row(0, "The doctor hides a coat.", "The doctor hides a coat."),
    row(1, "The sister buys a lamp.", "The doctor hides a coat.", ("The doctor hides a coat.",)),
    row(2, "Thank you.", "the a", ("The sister buys a lamp.", "Thank you."), frames=900),
    row(3, "A farmer paints the box in the garden today.", ""),
]


def test_facts_of_a_small_file() -> None:
    facts = behaviour(ROWS, Preset())
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
    gained = gains(better, ROWS, Preset())
    assert gained["r/0"] == gained["r/2"] == gained["r/3"] == 0
    assert gained["r/1"] > 50
    assert gains(ROWS, better, Preset())["r/1"] == -gained["r/1"]


def test_words_without_spaces_are_counted() -> None:
    facts = behaviour(
        [row(0, "我今天很好", "我很好"), row(1, "你好", "你好")], Preset("csl-daily", "zh", english=False)
    )
    assert facts["missed"] == [("今", 1), ("天", 1)]
    assert list(facts["by"]["reference_words"]) == ["0-3", "4-7"]
