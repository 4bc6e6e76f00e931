"""Paraphrases made elsewhere come to the clips they are meant for; what is left out is counted and named."""

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
    """The command on a file of this name, written beside the data."""
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


HAD = {"r1/a": ["Bread is baked."]}
GAINED = {"r1/a": ["Bread is baked.", "We make bread."], "r2/b": ["Hello.", "Good day."]}


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
def test_every_layout_means_the_same(signllava: Command, data: Path, name: str, content: Any) -> None:
    ended = merge(signllava, data, name, content)
    assert ended.code == 0, ended.err
    assert paraphrases(data) == GAINED


def test_named_columns_win(signllava: Command, data: Path) -> None:
    table = "id,paraphrase,mine,also\na,One.,Two.,Three.\n"
    ended = merge(signllava, data, "p.csv", table, "--clip-column", "id", "--column", "also", "--column", "mine")
    assert "clips from the column id, paraphrases from also, mine" in ended.out
    assert paraphrases(data)["r1/a"] == ["Bread is baked.", "Three.", "Two."]


def test_what_is_left_out_is_counted_and_named(signllava: Command, data: Path) -> None:
    texts = [" We make bread. ", "<none>", "", "nan", "We bake bread.", "Bread is baked.", "We make bread."]
    ended = merge(signllava, data, "p.json", {"a": texts, "r2/both": ["<none>"], "gone": ["x", "y"], "r3/a": []})
    assert ended.code == 0
    assert paraphrases(data) == {"r1/a": ["Bread is baked.", "We make bread."]}
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in ended.out.splitlines() if "│" in line]
    assert ["added", "1", "1"] in cells
    assert ["left out: says nothing", "4", "2"] in cells
    assert ["left out: copy of the translation", "1", "1"] in cells
    assert ["left out: repeat", "2", "1"] in cells
    assert "left out, says nothing: r1/a, r2/both" in ended.out
    assert "2 clips of" in ended.out
    assert "with 2 texts: gone, r3/a" in ended.out


def test_a_row_that_cannot_be_read_is_named(signllava: Command, data: Path) -> None:
    ended = merge(signllava, data, "p.csv", "clip,x\nb,Hello.\na,One,Two\n")
    assert ended.code == 0
    assert "1 rows of" in ended.out
    assert "p.csv:3: number of fields" in ended.out
    assert paraphrases(data) == {**HAD, "r2/b": ["Hello."]}


def test_replace_takes_the_place_of_what_a_clip_has(signllava: Command, data: Path) -> None:
    merge(signllava, data, "p.json", {"a": ["<none>"], "b": ["Hello."]}, "--replace")
    assert paraphrases(data) == {**HAD, "r2/b": ["Hello."]}
    merge(signllava, data, "p.json", {"a": ["We make bread."]}, "--replace")
    assert paraphrases(data) == {"r1/a": ["We make bread."], "r2/b": ["Hello."]}


def test_the_rest_stays_and_twice_is_once(signllava: Command, data: Path) -> None:
    file = data / "annotation.train.json"
    before = file.read_bytes()
    merge(signllava, data, "p.json", {"a": ["We make bread."], "both": []}, "--dry-run")
    assert file.read_bytes() == before
    ended = merge(signllava, data, "p.json", {"a": ["We make bread."]})
    assert "annotation.train.json.before" in ended.out
    once = file.read_bytes()
    expected = json.loads(before)
    expected["r1"]["a"]["paraphrases"].append("We make bread.")
    assert json.loads(once) == expected
    assert "nothing to change" in merge(signllava, data, "p.json", {"a": ["We make bread."]}).out
    assert file.read_bytes() == once
    merge(signllava, data, "p.json", {"b": ["Hello."]})
    assert (data / "annotation.train.json.before").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
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
def test_errors_are_one_line_and_nothing_is_written(
    signllava: Command, data: Path, name: str, content: Any, options: tuple[str, ...], says: str
) -> None:
    before = (data / "annotation.train.json").read_bytes()
    ended = merge(signllava, data, name, content, *options)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert (data / "annotation.train.json").read_bytes() == before
    assert [path.name for path in data.iterdir()] == ["annotation.train.json"]
