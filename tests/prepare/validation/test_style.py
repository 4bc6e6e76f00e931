"""`prepare check` tells splits whose texts are written in another style than those of train."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]
SAID = "am Tag heute Nacht Regen Sonne im Norden und Süden wird es wärmer klar bleibt Schnee möglich"


def sentence(rng: random.Random) -> str:
    text = " ".join(rng.choices(SAID.split(), k=rng.randint(4, 9)))
    return text[0].upper() + text[1:] + rng.choice("..!")


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def styles(signllava: Command, root: Path, *words: str, **splits: Sequence[str]) -> list[dict[str, Any]]:
    """The findings on style in a dataset of these texts."""
    root.mkdir(exist_ok=True)
    for split, texts in splits.items():
        clips = {f"{split}-{number}": {"translation": text} for number, text in enumerate(texts)}
        content = {split: {"clip_order": list(clips), **clips}} if clips else {}
        (root / f"annotation.{split}.json").write_text(json.dumps(content))
    ended = signllava("prepare", "check", root, "--report", root / "check.json", *words)
    findings = json.loads((root / "check.json").read_text())["findings"]
    assert ended.code == (2 if any(each["severity"] == "error" for each in findings) else 0)
    return [each for each in findings if each["name"].startswith("style-")]


def lower(text: str) -> str:
    return text.lower()


def upper(text: str) -> str:
    return text.upper()


def spaced(text: str) -> str:
    return f"{text[:-1]} {text[-1]}"


def bare(text: str) -> str:
    return text[:-1]


def joined(text: str) -> str:
    return text.replace(" ", "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (bare, "end in punctuation: 200 of 200 texts of train, 0 of 30 here"),
        (lower, "hold a capital letter: 200 of 200 texts of train, 0 of 30 here"),
        (upper, "hold a small letter: 200 of 200 texts of train, 0 of 30 here"),
        (spaced, "have a space before punctuation: 0 of 200 texts of train, 30 of 30 here"),
        (joined, "no text here holds ' '"),
    ],
)
def test_a_split_that_differs_wholly_is_an_error(
    signllava: Command, tmp_path: Path, change: Callable[[str], str], says: str
) -> None:
    """Each way round: it may be train that is written differently."""
    train, dev = sentences(200, 0), sentences(30, 1)
    (found,) = styles(signllava, tmp_path, train=train, dev=[change(text) for text in dev], test=sentences(30, 2))
    assert (found["name"], found["severity"], found["split"]) == ("style-differs-wholly", "error", "dev")
    assert found["names"] == ["annotation.dev.json"]
    assert says in found["what"]
    changed = styles(signllava, tmp_path, train=[change(text) for text in train], dev=dev, test=sentences(30, 2))
    assert {(each["name"], each["split"]) for each in changed} >= {
        ("style-differs-wholly", "dev"),
        ("style-differs-wholly", "test"),
    }


def test_a_split_that_differs_in_part_is_a_note(signllava: Command, tmp_path: Path) -> None:
    half = [bare(text) if number % 2 else text for number, text in enumerate(sentences(100, 1))]
    (found,) = styles(signllava, tmp_path, train=sentences(200, 0), dev=half)
    assert (found["name"], found["severity"], found["split"]) == ("style-differs", "note", "dev")
    assert "end in punctuation: 200 of 200 texts of train, 50 of 100 here" in found["what"]


def test_characters_that_a_split_lacks_are_a_note(signllava: Command, tmp_path: Path) -> None:
    """Umlauts are written as two letters in one split, and quotes are others in the other."""
    train, dev = sentences(200, 0), sentences(100, 1)
    plain = [text.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue") for text in dev]
    plain[:10] = [f"„{text}" for text in plain[:10]]
    (found,) = styles(signllava, tmp_path, train=train, dev=plain)
    assert (found["name"], found["severity"]) == ("style-differs", "note")
    assert "no text here holds 'ä', 'ö', 'ü'" in found["what"]
    assert "no text of train holds '„'" in found["what"]


@pytest.mark.parametrize("seed", range(8))
def test_splits_of_one_style_are_alike(signllava: Command, tmp_path: Path, seed: int) -> None:
    """What chance gives to splits of several sizes is no style, nor is a rare character of train."""
    texts = sentences(700, seed)
    texts[:3] = [text + " ñ…" for text in texts[:3]]
    assert styles(signllava, tmp_path, train=texts[:450], dev=texts[450:480], test=texts[480:]) == []


@pytest.mark.parametrize("dev", [[], ["nur so"] * 3, [bare(text) for text in sentences(9, 1)]])
def test_small_and_empty_splits_are_not_judged(signllava: Command, tmp_path: Path, dev: list[str]) -> None:
    assert styles(signllava, tmp_path, train=sentences(200, 0), dev=dev) == []


def test_a_script_without_case_has_none_to_compare(signllava: Command, tmp_path: Path) -> None:
    """A single text in Latin letters tells nothing of the case of the others."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("今天我们去学校看书", k=8)) + "。" for _ in range(200)]
    dev = [text[::-1].removeprefix("。") + "。" for text in texts[:60]]
    assert styles(signllava, tmp_path, train=[*texts, "OK。"], dev=[*dev, "ok。"]) == []


def test_without_train_the_first_split_is_compared_with(signllava: Command, tmp_path: Path) -> None:
    words = ("--split", "dev", "--split", "test")
    texts = {"dev": sentences(50, 0), "test": [bare(text) for text in sentences(50, 1)]}
    (found,) = styles(signllava, tmp_path, *words, train=sentences(50, 2), **texts)
    assert found["split"] == "test"
    assert "50 of 50 texts of dev, 0 of 50 here" in found["what"]
