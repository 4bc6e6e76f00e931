"""Paraphrases from a file are added to the right clips; skipped ones are counted and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings: `a` and `both` in the first, `b` and `both` in the second; `a` has a paraphrase."""
    root = tmp_path / "d"
    root.mkdir()
    content = {
        "r1": {
            "clip_order": ["a", "both"],
            "a": {
                "translation": "We bake bread.",
                "paraphrases": ["Bread is baked."],
                "keywords": ["bake"],
                "x": 1.5,
            },
            "both": {"translation": "It rains."},
        },
        "r2": {"clip_order": ["b", "both"], "b": {"translation": "Hi."}, "both": {"translation": "It snows."}},
    }
    (root / "annotation.train.json").write_text(json.dumps(content))
    return root


def merge(signllava: Command, data: Path, name: str, content: Any, *options: object) -> Ended:
    """Run the command on a file with this name and content."""
    file = data.parent / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return signllava("prepare", "paraphrases", file, data, "--split", "train", *options)


def paraphrases(data: Path) -> dict[str, list[str]]:
    content = json.loads((data / "annotation.train.json").read_text())
    return {
        f"{recording}/{clip}": clips[clip]["paraphrases"]
        for recording, clips in content.items()
        for clip in clips["clip_order"]
        if "paraphrases" in clips[clip]
    }


OLD = {"r1/a": ["Bread is baked."]}
MERGED = {"r1/a": ["Bread is baked.", "We make bread."], "r2/b": ["Hello.", "Good day."]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", {"a": ["We make bread."], "b": ["Hello.", "Good day."]}),
        ("p.json", {"r1/a": ["We make bread."], "b": ["Hello."], "r2/b": ["Good day."]}),
        ("p.json", {"r1": {"a": ["We make bread."]}, "r2": {"b": ["Hello.", "Good day."]}}),
        (
            "annotation.train.json",
            {
                "r1": {"clip_order": ["a"], "a": {"translation": "-", "paraphrases": ["We make bread."]}},
                "r2": {"clip_order": ["b", "both"], "b": {"paraphrases": ["Hello.", "Good day."]}, "both": {}},
            },
        ),
        ("p.csv", "\ufeffclip,Rephrase1,text,REPHRASE2\na,We make bread.,no,\nb,Hello.,no,Good day.\n"),
        ("p.tsv", "one\tclip\ttwo\nWe make bread.\tr1/a\t\nHello.\tr2/b\tGood day.\n"),
        ("p.csv", 'clip;x\na;"We make bread."\nb;Hello.\nb;Good day.\n'),
    ],
)
def test_every_format_gives_the_same_result(signllava: Command, data: Path, name: str, content: Any) -> None:
    result = merge(signllava, data, name, content)
    assert result.code == 0, result.err
    assert paraphrases(data) == MERGED


def test_named_columns_have_precedence(signllava: Command, data: Path) -> None:
    table = "id,paraphrase,second,first\na,One.,Two.,Three.\n"
    result = merge(signllava, data, "p.csv", table, "--clip-column", "id", "--column", "first", "--column", "second")
    assert "clips from the column id, paraphrases from first, second" in result.out
    assert paraphrases(data)["r1/a"] == ["Bread is baked.", "Three.", "Two."]


def test_skipped_texts_are_counted_and_named(signllava: Command, data: Path) -> None:
    texts = [" We make bread. ", "<none>", "", "nan", "We bake bread.", "Bread is baked.", "We make bread."]
    result = merge(signllava, data, "p.json", {"a": texts, "r2/both": ["<none>"], "gone": ["x", "y"], "r3/a": []})
    assert result.code == 0
    assert paraphrases(data) == {"r1/a": ["Bread is baked.", "We make bread."]}
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.out.splitlines() if "│" in line]
    assert ["added", "1", "1"] in cells
    assert ["skipped: placeholder", "4", "2"] in cells
    assert ["skipped: copy of the translation", "1", "1"] in cells
    assert ["skipped: repetition", "2", "1"] in cells
    assert "skipped, placeholder: r1/a, r2/both" in result.out
    assert "paraphrases of 1 clip written" in result.out
    assert "2 clips, with 2 texts, not in split train: gone, r3/a" in result.out


def test_a_malformed_row_is_named(signllava: Command, data: Path) -> None:
    result = merge(signllava, data, "p.csv", "clip,x\nb,Hello.\na,One,Two\n")
    assert result.code == 0
    assert "1 row of" in result.out
    assert "p.csv:3: number of fields" in result.out
    assert paraphrases(data) == {**OLD, "r2/b": ["Hello."]}


def test_replace_replaces_existing_paraphrases(signllava: Command, data: Path) -> None:
    merge(signllava, data, "p.json", {"a": ["<none>"], "b": ["Hello."]}, "--replace")
    assert paraphrases(data) == {**OLD, "r2/b": ["Hello."]}
    merge(signllava, data, "p.json", {"a": ["We make bread."]}, "--replace")
    assert paraphrases(data) == {"r1/a": ["We make bread."], "r2/b": ["Hello."]}


def test_a_repeated_merge_changes_nothing_and_the_rest_is_kept(signllava: Command, data: Path) -> None:
    file = data / "annotation.train.json"
    before = file.read_bytes()
    merge(signllava, data, "p.json", {"a": ["We make bread."], "both": []}, "--dry-run")
    assert file.read_bytes() == before
    result = merge(signllava, data, "p.json", {"a": ["We make bread."]})
    assert "annotation.train.json.before" in result.out
    merged = file.read_bytes()
    expected = json.loads(before)
    expected["r1"]["a"]["paraphrases"].append("We make bread.")
    assert json.loads(merged) == expected
    assert "nothing to change" in merge(signllava, data, "p.json", {"a": ["We make bread."]}).out
    assert file.read_bytes() == merged
    merge(signllava, data, "p.json", {"b": ["Hello."]})
    assert (data / "annotation.train.json.before").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.json", {"both": ["x"]}, (), "several recordings: 'both' (the first in 'r1', 'r2'); write recording/clip"),
        ("p.json", {"c\nd": ["x"], "r1/b": ["x"]}, (), "none of its clips is in"),
        ("p.json", {}, (), "it names none"),
        ("p.json", "{", (), "is not JSON"),
        ("p.json", {"a": "x"}, (), "clip 'a': expected a list of texts"),
        ("p.json", {"r1": {"a": [1]}}, (), "clip 'r1/a': expected a list of texts"),
        ("p.json", {"a": ["\ud83d"]}, (), "half a surrogate pair"),
        ("p.csv", "id,x\na,b\n", (), "has no column clip; its columns are id, x"),
        ("p.csv", "clip,x\na,b\n", ("--column", "y"), "has no column y"),
        ("p.csv", "clip\na\n", (), "no column but clip"),
        ("p.csv", "", (), "is empty"),
        ("p.csv", {"a": ["x"]}, ("--split", "dev"), "No annotation.dev.json"),
    ],
)
def test_errors_are_one_line_and_no_file_is_written(
    signllava: Command, data: Path, name: str, content: Any, options: tuple[str, ...], message: str
) -> None:
    before = (data / "annotation.train.json").read_bytes()
    result = merge(signllava, data, name, content, *options)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert (data / "annotation.train.json").read_bytes() == before
    assert [path.name for path in data.iterdir()] == ["annotation.train.json"]
