"""Annotation files: reading, and error messages that name the file, the recording and the clip."""

import json
from pathlib import Path
from typing import Any

import pytest

from signllava_cli.data.annotations import read_annotations
from signllava_cli.errors import UserError

CLIP = {"translation": "Hello.", "paraphrases": [], "keywords": []}


def write_annotation(root: Path, content: Any) -> Path:
    (root / "annotation.train.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def test_reads_clips_in_clip_order(tmp_path: Path) -> None:
    content = {"r": {"clip_order": ["b", "a"], "a": CLIP, "b": {"translation": "Hi."}}}
    (recording,) = read_annotations(write_annotation(tmp_path, content), "train")
    assert [(clip.name, clip.position, clip.translation) for clip in recording.clips] == [
        ("b", 0, "Hi."),
        ("a", 1, "Hello."),
    ]


def test_a_source_in_another_format_is_ignored(tmp_path: Path) -> None:
    source = {"video_id": "v", "year": 2020, "half": "\ud83d"}
    content = {"r": {"clip_order": ["a", "b"], "a": {**CLIP, "source": "web"}, "b": {**CLIP, "source": source}}}
    (recording,) = read_annotations(write_annotation(tmp_path, content), "train")
    assert [dict(clip.source) for clip in recording.clips] == [{}, {"video_id": "v"}]


def test_the_data_folder_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / "metadata_x.json"
    root.mkdir()
    assert len(read_annotations(write_annotation(root, {"r": {"clip_order": ["a"], "a": CLIP}}), "train")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ', "annotation.train.json is not JSON"),
        ("[]", "holds a list"),
        ('{"r": {"clip_order": []}, "r": {"clip_order": []}}', "the key 'r' is given twice"),
        ("[" * 100_000, "cannot be read as JSON"),
        ({"a/b": {"clip_order": ["a"], "a": CLIP}}, "a name must not be empty"),
        ({"r": {"clip_order": ["."], ".": CLIP}}, "a name must not be empty"),
        ({"r": {"clip_order": ["a"], "a": {"translation": "\ud83d"}}}, "half a surrogate pair"),
        (
            {"r": {"clip_order": ["a", "b"], "a": CLIP}},
            "clip 'r/b': clip_order names it, but it has no entry",
        ),
        ({"r": {"clip_order": ["a"], "a": CLIP, "b": CLIP}}, "clip 'r/b': clip_order misses it"),
        ({"r": {"clip_order": ["a", "a"], "a": CLIP}}, "clip 'r/a': clip_order repeats it 2 times"),
        ({"r": {"clip_order": ["a"], "a": {"translation": " "}}}, "empty translation"),
        (
            {"r": {"clip_order": ["a"], "a": {"text": "x"}}},
            "clip 'r/a': expected an object with a string `translation`",
        ),
        ({"r": {"a": CLIP}}, "recording 'r': expected an object with a `clip_order`"),
        ({"r": {"clip_order": ["a"], "a": {**CLIP, "paraphrases": "Hi."}}}, "`paraphrases` is not a list of strings"),
        (
            {"r": {"clip_order": ["a"], "a": {**CLIP, "context_bound": {"needs": "window"}}}},
            "`context_bound` must have",
        ),
        ({"r": {"clip_order": [1], "1": CLIP}}, "clip_order contains 1, which is not a string"),
        ({"r": {"clip_order": ["a"], "a": {**CLIP, "start": "0:01"}}}, "`start` is not a number of seconds"),
        ({"r": {"clip_order": ["a", "b"]}}, r"'r/a': .* \(1 more error: `signllava prepare check"),
        ({}, "has no clips; import annotations again .`signllava prepare --help` lists the commands"),
    ],
)
def test_errors_name_file_and_clip(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_annotations(write_annotation(tmp_path, content), "train")


def test_the_command_in_an_error_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    write_annotation(folder, {"r": {"clip_order": ["a", "b"]}})
    with pytest.raises(UserError, match=f"`signllava prepare check '{folder}'`"):
        read_annotations(folder, "train")


def test_errors_of_a_missing_split_list_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No data folder"):
        read_annotations(tmp_path / "missing", "train")
    write_annotation(tmp_path, {})
    with pytest.raises(UserError, match=r"No annotation\.dev\.json .* annotation\.train\.json"):
        read_annotations(tmp_path, "dev")
