"""Keywords are chosen by the documented rule, and the rest of the annotation file is backup."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, interrupted, subprocess_command

from signllava_cli.prepare.keywords import STOP_WORDS, shipped_stop_words

Command = Callable[..., Ended]

TRAIN = (
    "The baker kneads the dough.",
    "The baker bakes bread; Bread is life.",
    "Bread and 12 rolls, the baker said.",
    "Dough isn’t a Bread-Roll, x!",
    "Every bread-roll rolls: x, 12.",
)


def write_split(root: Path, sentences: tuple[str, ...] = TRAIN, split: str = "train", **fields: Any) -> Path:
    """A split of one recording; `fields` are added to the entry of every clip."""
    clips = {f"c{number}": {"translation": text, **fields} for number, text in enumerate(sentences)}
    root.mkdir(exist_ok=True)
    (root / f"annotation.{split}.json").write_text(json.dumps({"r": {"clip_order": list(clips), **clips}}))
    return root


def entries(root: Path, split: str = "train") -> dict[str, dict[str, Any]]:
    content = json.loads((root / f"annotation.{split}.json").read_text())["r"]
    return {clip: content[clip] for clip in content["clip_order"]}


def keywords(root: Path, split: str = "train") -> list[list[str]]:
    return [entry.get("keywords", []) for entry in entries(root, split).values()]


def test_keywords_follow_the_rule(signllava: Command, tmp_path: Path) -> None:
    """No stop words, numbers or single letters; in two clips or more; as written, in order, each once."""
    result = signllava("prepare", "keywords", write_split(tmp_path / "d"), "--split", "train")
    assert result.code == 0, result.err
    assert keywords(tmp_path / "d") == [
        ["baker", "dough"],
        ["baker", "bread"],
        ["Bread", "rolls", "baker"],
        ["Dough", "Bread-Roll"],
        ["bread-roll", "rolls"],
    ]


def test_the_rarest_words_are_chosen(signllava: Command, tmp_path: Path) -> None:
    """baker is in three clips; bread, dough, bread-roll and rolls in two: of equals, the first in the sentence."""
    signllava("prepare", "keywords", write_split(tmp_path / "d"), "--split", "train", "--max", 1)
    assert keywords(tmp_path / "d") == [["dough"], ["bread"], ["Bread"], ["Dough"], ["bread-roll"]]


def test_min_count_bounds_document_frequencies(signllava: Command, tmp_path: Path) -> None:
    result = signllava("prepare", "keywords", write_split(tmp_path / "d"), "--split", "train", "--min-count", 3)
    assert keywords(tmp_path / "d") == [["baker"], ["baker"], ["baker"], [], []]
    assert "train: 2 clips have no keywords (r/c3, r/c4)" in result.out


def test_max_share_applies_only_to_words_of_more_than_200_clips(signllava: Command, tmp_path: Path) -> None:
    sentences = ("snow rain",) * 200 + ("wind rain",) * 100 + ("fog",) * 2
    shares = {"0": ["snow"], "0.99": ["snow"], "1": ["rain", "snow"]}
    for share, expected in shares.items():
        root = write_split(tmp_path / share, sentences)
        signllava("prepare", "keywords", root, "--split", "train", "--max-share", share)
        assert sorted(keywords(root)[0]) == expected


def test_dev_uses_the_frequencies_of_the_first_split(signllava: Command, tmp_path: Path) -> None:
    root = write_split(
        write_split(tmp_path / "d"), ("An oven, an oven, the baker, rolls.", "Nothing; the oven."), "dev"
    )
    result = signllava("prepare", "keywords", root, "--split", "train", "--split", "dev", "--max", 1)
    assert keywords(root, "dev") == [["rolls"], []]
    assert "dev: 1 clip has no keywords (r/c1)" in result.out


def test_existing_entries_are_kept(signllava: Command, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"paraphrases": ["Ja – so."], "start": 1.5, "end": 2.0, "gloss": {"by": ["hand"]}}
    root = write_split(tmp_path / "d", **fields)
    content = json.loads((root / "annotation.train.json").read_text())
    content["r"]["c0"]["keywords"] = ["by hand"]
    before = json.dumps(content)
    (root / "annotation.train.json").write_text(before)
    result = signllava("prepare", "keywords", root, "--split", "train")
    assert "annotation.train.json.before" in result.out
    assert (root / "annotation.train.json.before").read_text() == before
    after = entries(root)
    assert after["c0"]["keywords"] == ["by hand"]
    assert list(after["c1"]) == ["translation", *fields, "keywords"]
    for entry in after.values():
        assert entry.pop("keywords")
    content["r"]["c0"].pop("keywords")
    assert after == {clip: content["r"][clip] for clip in content["r"]["clip_order"]}


def test_a_repeated_run_changes_nothing(signllava: Command, tmp_path: Path) -> None:
    root = write_split(tmp_path / "d")
    file = root / "annotation.train.json"
    versions = [file.read_bytes()]
    for options in ([], [], ["--replace"]):
        assert signllava("prepare", "keywords", root, "--split", "train", *options).code == 0
        versions.append(file.read_bytes())
    assert versions[0] != versions[1] == versions[2] == versions[3]
    assert (root / "annotation.train.json.before").read_bytes() == versions[0]


def test_replace_chooses_keywords_for_all_clips(signllava: Command, tmp_path: Path) -> None:
    root = write_split(tmp_path / "d", keywords=["old"])
    signllava("prepare", "keywords", root, "--split", "train")
    assert keywords(root) == [["old"]] * 5
    assert not (root / "annotation.train.json.before").exists()
    signllava("prepare", "keywords", root, "--split", "train", "--replace", "--min-count", 3)
    assert keywords(root) == [["baker"], ["baker"], ["baker"], [], []]


def test_a_placeholder_is_not_a_keyword(signllava: Command, tmp_path: Path) -> None:
    root = write_split(tmp_path / "d", keywords=["nan"])
    signllava("prepare", "keywords", root, "--split", "train", "--min-count", 3)
    assert keywords(root) == [["baker"], ["baker"], ["baker"], ["nan"], ["nan"]]


def test_dry_run_writes_nothing(signllava: Command, tmp_path: Path) -> None:
    root = write_split(tmp_path / "d")
    before = (root / "annotation.train.json").read_bytes()
    result = signllava("prepare", "keywords", root, "--split", "train", "--dry-run")
    assert 'r/c0: ["baker", "dough"]' in result.out
    assert [path.name for path in root.iterdir()] == ["annotation.train.json"]
    assert (root / "annotation.train.json").read_bytes() == before


@pytest.mark.parametrize("language", [path.stem for path in STOP_WORDS.glob("*.txt")])
def test_stop_words_are_never_keywords(signllava: Command, tmp_path: Path, language: str) -> None:
    stop_words = sorted(shipped_stop_words(language))
    assert len(stop_words) > 200
    root = write_split(tmp_path / "d", (*stop_words, *(word.upper() for word in stop_words), "haus", "Haus"))
    assert signllava("prepare", "keywords", root, "--split", "train", "--language", language).code == 0
    assert [word for clip_keywords in keywords(root) for word in clip_keywords] == ["haus", "Haus"]


def test_a_stop_list_replaces_the_shipped_stop_words(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("\ufeff# mine\nBAKER the  # and more\n\nisn't bread-roll")
    root = write_split(tmp_path / "d")
    signllava("prepare", "keywords", root, "--split", "train", "--stop-list", tmp_path / "stop.txt")
    assert keywords(root) == [["dough"], ["bread"], ["Bread", "rolls"], ["Dough"], ["rolls"]]


def test_the_keywords_of_the_toy_corpus_are_chosen_again(signllava: Command, tmp_path: Path, corpus: Path) -> None:
    root = tmp_path / "d"
    root.mkdir()
    for split in ("train", "dev"):
        (root / f"annotation.{split}.json").write_bytes((corpus / f"annotation.{split}.json").read_bytes())
    assert signllava("prepare", "keywords", root, "--split", "train", "--split", "dev", "--replace").code == 0
    for split in ("train", "dev"):
        old = json.loads((corpus / f"annotation.{split}.json").read_text())
        new = json.loads((root / f"annotation.{split}.json").read_text())
        for recording, clips in old.items():
            for clip in clips["clip_order"]:
                assert set(clips[clip]["keywords"]) <= set(new[recording][clip]["keywords"])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("{", (), "annotation.train.json is not JSON"),
        ('{"r": {"clip_order": ["a"], "a": {"text": "x"}}}', (), "expected an object with a string `translation`"),
        (
            '{"r": {"clip_order": ["a"], "a": {"translation": "bread", "by": "\\ud83d"}}}',
            ("--min-count", 1),
            "half a surrogate pair",
        ),
        (None, ("--split", "dev"), "No annotation.dev.json"),
        (None, ("--language", "xx"), "No stop words for language xx: choose one of de, en"),
        (None, ("--stop-list", "/nowhere"), "/nowhere cannot be read"),
        (None, ("--stop-list", "latin.txt"), "latin.txt, line 2, is not UTF-8"),
    ],
)
def test_errors_are_one_line_and_no_file_is_written(
    signllava: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    options: tuple[object, ...],
    message: str,
) -> None:
    root = write_split(tmp_path / "d")
    file = root / "annotation.train.json"
    file.write_text(content or file.read_text())
    before = file.read_bytes()
    (tmp_path / "latin.txt").write_bytes(b"the\n\xfcber\n")
    monkeypatch.chdir(tmp_path)
    result = signllava("prepare", "keywords", root, "--split", "train", *options)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert file.read_bytes() == before
    assert [path.name for path in root.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ("rename", "annotation.train.json.before"),  # the copy is written, but not yet renamed
        ("open", "annotation.train.json.tmp"),
        ("rename", "annotation.train.json"),
    ],
)
def test_a_kill_leaves_the_old_file_and_the_same_command_continues(
    signllava: Command, tmp_path: Path, event: str, name: str
) -> None:
    file = write_split(tmp_path / "d") / "annotation.train.json"
    backup = file.with_name("annotation.train.json.before")
    command = ("prepare", "keywords", tmp_path / "d", "--split", "train")
    old = file.read_bytes()
    process = subprocess_command(*command, env=interrupted(name, 1, signal.SIGKILL, event))
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    assert file.read_bytes() == old
    assert not backup.exists() or backup.read_bytes() == old
    assert signllava(*command).code == 0
    assert keywords(tmp_path / "d")[0] == ["baker", "dough"]
    assert backup.read_bytes() == old
