"""The annotation file of a split: whether it can be read, and what in it cannot be used."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.data.annotations import Recording, annotation_file, parse_annotations
from signllava_cli.errors import UserError
from signllava_cli.files import read_json
from signllava_cli.prepare.validation.findings import Findings


@dataclass(frozen=True)
class AnnotatedSplit:
    """A split as far as its annotation can be read: the `content` of the file, and the usable part of it.

    `mendable`: nothing was lost while reading, so a fixed copy of `content` may be written.
    """

    name: str
    content: Mapping[str, Any]
    recordings: Sequence[Recording]
    is_fixable: bool

    @property
    def clip_ids(self) -> dict[str, None]:
        """`recording/clip` of every entry, usable or not, in the order of the file."""
        return {
            f"{recording}/{clip}": None
            for recording, entry in self.content.items()
            if isinstance(entry, dict)
            for clip in entry
            if clip != "clip_order"
        }


def check_annotation(root: Path, split: str, findings: Findings) -> AnnotatedSplit | None:
    """The split, or None where its file cannot be read at all."""
    file = annotation_file(root, split)
    if not file.is_file():
        findings.add("annotation-missing", [file.name], split)
        return None
    try:
        content, twice = _read_with_duplicates(file)
    except UserError as error:
        findings.add("annotation-unreadable", [file.name], split, detail=str(error))
        return None
    findings.add("annotation-key-twice", twice, split)
    recordings, errors = parse_annotations(content)
    for each in errors:
        findings.add(each.kind, [each.name], split, detail=f"{each.name}: {each.message}")
    findings.add("recording-empty", (name for name, entry in content.items() if _has_no_clips(entry)), split)
    if not any(recording.clips for recording in recordings):
        findings.add("annotation-empty", [file.name], split)
    return AnnotatedSplit(split, content, recordings, is_fixable=not twice)


def _has_no_clips(entry: Any) -> bool:
    return isinstance(entry, dict) and not set(entry) - {"clip_order"} and not entry.get("clip_order")


def _read_with_duplicates(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The JSON object in `file`, and the keys that it gives twice, of which the last is kept.

    Raises:
        UserError: the error of `read_json`.
    """
    twice: list[str] = []

    def noticed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                twice.append(key)
            content[key] = value
        return content

    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=noticed)
    except (OSError, ValueError, RecursionError):
        content = None
    return (content, twice) if isinstance(content, dict) else (read_json(file), [])
