"""`prepare check` reports splits whose texts are written in another style than those of train."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]
VOCABULARY = "am Tag heute Nacht Regen Sonne im Norden und Süden wird es wärmer klar bleibt Schnee möglich"


def sentence(rng: random.Random) -> str:
    text = " ".join(rng.choices(VOCABULARY.split(), k=rng.randint(4, 9)))
    return text[0].upper() + text[1:] + rng.choice("..!")


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def style_findings(signllava: Command, root: Path, *options: str, **splits: Sequence[str]) -> list[dict[str, Any]]:
    """The style findings of a dataset with these texts."""
    root.mkdir(exist_ok=True)
    for split, texts in splits.items():
        clips = {f"{split}-{number}": {"translation": text} for number, text in enumerate(texts)}
        content = {split: {"clip_order": list(clips), **clips}} if clips else {}
        (root / f"annotation.{split}.json").write_text(json.dumps(content))
    result = signllava("prepare", "check", root, "--report", root / "check.json", *options)
    findings = json.loads((root / "check.json").read_text())["findings"]
    assert result.code == (2 if any(finding["severity"] == "error" for finding in findings) else 0)
    return [finding for finding in findings if finding["name"].startswith("style-")]


def lower(text: str) -> str:
    return text.lower()


def upper(text: str) -> str:
    return text.upper()


def add_space(text: str) -> str:
    return f"{text[:-1]} {text[-1]}"


def remove_last(text: str) -> str:
    return text[:-1]


def remove_spaces(text: str) -> str:
    return text.replace(" ", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_last, "end in punctuation: 200 of 200 texts of train, 0 of 30 here"),
        (lower, "hold a capital letter: 200 of 200 texts of train, 0 of 30 here"),
        (upper, "hold a small letter: 200 of 200 texts of train, 0 of 30 here"),
        (add_space, "have a space before punctuation: 0 of 200 texts of train, 30 of 30 here"),
        (remove_spaces, "no text here holds ' '"),
    ],
)
def test_a_split_that_differs_strongly_is_an_error(
    signllava: Command, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    """In both directions: train may be the split that is written differently."""
    train, dev = sentences(200, 0), sentences(30, 1)
    (finding,) = style_findings(
        signllava, tmp_path, train=train, dev=[change(text) for text in dev], test=sentences(30, 2)
    )
    assert (finding["name"], finding["severity"], finding["split"]) == ("style-differs-wholly", "error", "dev")
    assert finding["names"] == ["annotation.dev.json"]
    assert message in finding["what"]
    changed = style_findings(
        signllava, tmp_path, train=[change(text) for text in train], dev=dev, test=sentences(30, 2)
    )
    assert {(finding["name"], finding["split"]) for finding in changed} >= {
        ("style-differs-wholly", "dev"),
        ("style-differs-wholly", "test"),
    }


def test_a_split_that_differs_in_part_is_a_note(signllava: Command, tmp_path: Path) -> None:
    half = [remove_last(text) if number % 2 else text for number, text in enumerate(sentences(100, 1))]
    (finding,) = style_findings(signllava, tmp_path, train=sentences(200, 0), dev=half)
    assert (finding["name"], finding["severity"], finding["split"]) == ("style-differs", "note", "dev")
    assert "end in punctuation: 200 of 200 texts of train, 50 of 100 here" in finding["what"]


def test_characters_that_a_split_lacks_are_a_note(signllava: Command, tmp_path: Path) -> None:
    """One split writes umlauts as two letters, and has other quotation marks."""
    train, dev = sentences(200, 0), sentences(100, 1)
    plain = [text.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue") for text in dev]
    plain[:10] = [f"„{text}" for text in plain[:10]]
    (finding,) = style_findings(signllava, tmp_path, train=train, dev=plain)
    assert (finding["name"], finding["severity"]) == ("style-differs", "note")
    assert "no text here holds 'ä', 'ö', 'ü'" in finding["what"]
    assert "no text of train holds '„'" in finding["what"]


@pytest.mark.parametrize("seed", range(8))
def test_splits_of_one_style_have_no_finding(signllava: Command, tmp_path: Path, seed: int) -> None:
    """Neither differences by chance nor a rare character of train are a difference of style."""
    texts = sentences(700, seed)
    texts[:3] = [text + " ñ…" for text in texts[:3]]
    assert style_findings(signllava, tmp_path, train=texts[:450], dev=texts[450:480], test=texts[480:]) == []


@pytest.mark.parametrize("dev", [[], ["nur so"] * 3, [remove_last(text) for text in sentences(9, 1)]])
def test_small_and_empty_splits_are_not_compared(signllava: Command, tmp_path: Path, dev: list[str]) -> None:
    assert style_findings(signllava, tmp_path, train=sentences(200, 0), dev=dev) == []


def test_case_is_not_compared_in_a_script_without_case(signllava: Command, tmp_path: Path) -> None:
    """A single text in Latin letters does not matter."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("今天我们去学校看书", k=8)) + "。" for _ in range(200)]
    dev = [text[::-1].removeprefix("。") + "。" for text in texts[:60]]
    assert style_findings(signllava, tmp_path, train=[*texts, "OK。"], dev=[*dev, "ok。"]) == []


def test_without_train_splits_are_compared_with_the_first(signllava: Command, tmp_path: Path) -> None:
    options = ("--split", "dev", "--split", "test")
    texts = {"dev": sentences(50, 0), "test": [remove_last(text) for text in sentences(50, 1)]}
    (finding,) = style_findings(signllava, tmp_path, *options, train=sentences(50, 2), **texts)
    assert finding["split"] == "test"
    assert "50 of 50 texts of dev, 0 of 50 here" in finding["what"]
