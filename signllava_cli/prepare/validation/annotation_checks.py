"""Checks whether the annotation file of a split can be read, and which of its entries are invalid."""

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
    """A split whose annotation file is JSON.

    `content`: the JSON object. `recordings`: its valid part. `is_fixable`: a fixed copy of `content` may be written,
    because no key was lost while reading.
    """

    name: str
    content: Mapping[str, Any]
    recordings: Sequence[Recording]
    is_fixable: bool

    @property
    def clip_ids(self) -> dict[str, None]:
        """`recording/clip` of every entry, valid or not, in the order of the file."""
        return {
            f"{recording}/{clip}": None
            for recording, entry in self.content.items()
            if isinstance(entry, dict)
            for clip in entry
            if clip != "clip_order"
        }


def check_annotation(root: Path, split: str, findings: Findings) -> AnnotatedSplit | None:
    """The split, or None if its file cannot be read."""
    file = annotation_file(root, split)
    if not file.is_file():
        findings.add("annotation-missing", [file.name], split)
        return None
    try:
        content, duplicate_keys = _read_with_duplicates(file)
    except UserError as read_error:
        findings.add("annotation-unreadable", [file.name], split, detail=str(read_error))
        return None
    findings.add("annotation-key-twice", duplicate_keys, split)
    recordings, errors = parse_annotations(content)
    for error in errors:
        findings.add(error.kind, [error.name], split, detail=f"{error.name}: {error.message}")
    findings.add("recording-empty", (name for name, entry in content.items() if _is_empty(entry)), split)
    if not any(recording.clips for recording in recordings):
        findings.add("annotation-empty", [file.name], split)
    return AnnotatedSplit(split, content, recordings, is_fixable=not duplicate_keys)


def _is_empty(entry: Any) -> bool:
    return isinstance(entry, dict) and not set(entry) - {"clip_order"} and not entry.get("clip_order")


def _read_with_duplicates(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The JSON object in `file`, and its duplicate keys, of which the last value is kept.

    Raises:
        UserError: the error of `read_json`.
    """
    duplicate_keys: list[str] = []

    def collect_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                duplicate_keys.append(key)
            content[key] = value
        return content

    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=collect_duplicates)
    except (OSError, ValueError, RecursionError):
        content = None
    return (content, duplicate_keys) if isinstance(content, dict) else (read_json(file), [])
