"""The annotation file of a split: recordings, their clips in signing order, and the text of each clip."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError, format_count
from signllava_cli.files import read_json
from signllava_cli.recipe import is_unicode

DIGITS = frozenset("0123456789")
MAX_SECONDS = 1e12  # a larger time is a mistake


@dataclass(frozen=True)
class ContextBound:
    """The mark of a clip that cannot be translated without context, with its right and its wrong readings.

    `needs`: where the sentence is that resolves the ambiguity, `prelude` (the first sentences of the recording) or
    `window` (the last ones before the clip). `reading`: the word that is right in this context. `others`: the words
    that the same signs mean in other contexts.
    """

    needs: str
    reading: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """One sentence of a recording.

    `position`: the clip's index in its recording, from 0, in signing order. `start`, `end`: seconds in the
    recording's video, None if the source does not give them. `row`: the clip's row in the index of its split, -1
    outside of one. `source`: the identifying columns of the table that the clip was imported from, by lower-case
    name, as in `{"video_id": "v"}`; patterns of `prepare pack` may use them. The index does not store it.
    """

    recording: str
    name: str
    position: int
    translation: str
    paraphrases: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    context_bound: ContextBound | None = None
    start: float | None = None
    end: float | None = None
    row: int = field(default=-1, compare=False)
    source: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        """`recording/clip`, unique in a split."""
        return f"{self.recording}/{self.name}"


@dataclass(frozen=True)
class Recording:
    """One signer's continuous video: its clips in signing order. Context never crosses recordings."""

    name: str
    clips: tuple[Clip, ...]


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """The sort key of natural order, in which `clip9` comes before `clip10`."""
    key = []
    for part in re.split(r"([0-9]+)", name):
        number = part.lstrip("0")  # not an int, which has at most 4300 digits
        key.append((len(number), f"{number} {part}") if part[:1] in DIGITS else (-1, part))
    return key


def annotation_file(root: Path, split: str) -> Path:
    """`annotation.{split}.json` in the dataset folder `root`.

    Raises:
        UserError: the split cannot be part of a file name.
    """
    if not split or "/" in split or not split.isprintable():
        raise UserError(f"{split!r} is not the name of a split: expected letters, digits, `_`, `-` and `.`.")
    return root / f"annotation.{split}.json"


@dataclass(frozen=True)
class AnnotationError:
    """An error in one entry of an annotation file.

    `kind`: the name of the check of `prepare check` that reports it. `clip`: None for an error of the recording.
    """

    kind: str
    recording: str
    clip: str | None
    message: str

    @property
    def name(self) -> str:
        """`recording/clip`, or the recording's name."""
        return self.recording if self.clip is None else f"{self.recording}/{self.clip}"


def read_annotations(root: Path, split: str) -> list[Recording]:
    """The recordings of `split`, in the order of the file.

    Raises:
        UserError: the folder or file is missing, is not JSON, has an error of `parse_annotations`, or has no clips.
    """
    file = annotation_file(root, split)
    if not root.is_dir():
        raise UserError(
            f"No data folder at {root}: set data.root (or --out) to one, or create one with `signllava prepare`."
        )
    if not file.is_file():
        names = sorted(path.name for path in root.glob("annotation.*.json"))
        raise UserError(
            f"No {file.name} in {root}, whose annotation files are: {', '.join(names) or 'none'}. Name an existing "
            "split: data.train, data.dev, generate.split, generate.context_from, --split, --context-from."
        )
    recordings, errors = parse_annotations(read_json(file))
    if errors:
        count = format_count(len(errors) - 1, "more error")
        command = f"`signllava prepare check {shlex.quote(str(root))}`"
        more = f" ({count}: {command} lists them)" if errors[1:] else ""
        kind = "recording" if errors[0].clip is None else "clip"
        raise UserError(f"{file}, {kind} {errors[0].name!a}: {errors[0].message}{more}.".replace("\n", " "))
    if not any(recording.clips for recording in recordings):
        raise UserError(
            f"{file} has no clips; import annotations again (`signllava prepare --help` lists the commands)."
        )
    return recordings


def parse_annotations(content: Mapping[str, Any]) -> tuple[list[Recording], list[AnnotationError]]:
    """The recordings in `content`, the parsed JSON of an annotation file, and the errors in it.

    A clip with an error is omitted from its recording; the other clips keep their order.
    """
    errors: list[AnnotationError] = []
    recordings = [_parse_recording(name, entry, errors) for name, entry in content.items()]
    return recordings, errors


def _parse_recording(name: str, entry: Any, errors: list[AnnotationError]) -> Recording:
    def add_error(kind: str, message: str, clip: str | None = None) -> None:
        errors.append(AnnotationError(kind, name, clip, message))

    if name_error := _name_error(name):
        add_error("name-unusable", name_error)
    if not isinstance(entry, dict) or not isinstance(entry.get("clip_order"), list):
        add_error("recording-malformed", "expected an object with a `clip_order` list")
        return Recording(name, ())
    order = [str(clip) for clip in entry["clip_order"]]
    if non_strings := [clip for clip in entry["clip_order"] if not isinstance(clip, str)]:
        add_error("recording-malformed", f"clip_order contains {non_strings[0]!r}, which is not a string")
    annotated = set(entry) - {"clip_order"}
    for clip, count in Counter(order).items():
        if count > 1:
            add_error("clip-order-repeats", f"clip_order repeats it {count} times", clip)
        if clip not in annotated:
            add_error("clip-order-unknown", "clip_order names it, but it has no entry", clip)
    for clip in sorted(annotated - set(order)):
        add_error("clip-order-misses", "clip_order misses it", clip)
    clips: list[Clip] = []
    for clip in dict.fromkeys(order):
        if clip in annotated:
            try:
                clips.append(_parse_clip(name, len(clips), clip, entry[clip]))
            except _InvalidEntry as invalid:
                add_error(invalid.kind, str(invalid), clip)
    return Recording(name, tuple(clips))


class _InvalidEntry(Exception):
    """A clip's entry has an error; `kind` is the name of its check."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _parse_clip(recording: str, position: int, name: str, entry: Any) -> Clip:
    if name_error := _name_error(name):
        raise _InvalidEntry("name-unusable", name_error)
    if not isinstance(entry, dict) or not isinstance(entry.get("translation"), str):
        raise _InvalidEntry("clip-malformed", "expected an object with a string `translation`")
    if not is_unicode(entry["translation"]):
        raise _InvalidEntry("text-not-unicode", _NOT_UNICODE)
    if not entry["translation"].strip():
        raise _InvalidEntry(
            "text-empty", "has an empty translation; remove the clip from the file and from its clip_order"
        )
    return Clip(
        recording=recording,
        name=name,
        position=position,
        translation=entry["translation"],
        paraphrases=_parse_strings("paraphrases", entry.get("paraphrases")),
        keywords=_parse_strings("keywords", entry.get("keywords")),
        context_bound=_parse_context_bound(entry.get("context_bound")),
        start=_parse_seconds("start", entry.get("start")),
        end=_parse_seconds("end", entry.get("end")),
        source=_parse_source(entry.get("source")),
    )


_NOT_UNICODE = "contains half a surrogate pair (\\ud800 to \\udfff), which is not Unicode text"


def _name_error(name: str) -> str | None:
    """HDF5 reads `/` and `.` as paths: two such names could point to the same array, and have the same id.

    Folders of feature files and videos are named after recordings, so `..` would lead out of the folder.
    """
    if not name or "/" in name or name in (".", "..") or "\0" in name:
        return "a name must not be empty, be `.` or `..`, or contain `/` or a NUL character"
    return None if is_unicode(name) else _NOT_UNICODE


def _parse_strings(key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and is_unicode(text) for text in value):
        raise _InvalidEntry("clip-malformed", f"`{key}` is not a list of strings")
    return tuple(value)


def _parse_seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_SECONDS:
        raise _InvalidEntry("clip-malformed", f"`{key}` is not a number of seconds")
    return float(value)


def _parse_source(value: Any) -> dict[str, str]:
    """The strings of `source`; anything else is ignored, since other tools may use the key differently."""
    columns = value.items() if isinstance(value, dict) else ()
    return {column: cell for column, cell in columns if isinstance(cell, str) and is_unicode(cell)}


def _parse_context_bound(value: Any) -> ContextBound | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("needs", "reading")):
        raise _InvalidEntry(
            "clip-malformed", "`context_bound` must have the strings `needs` and `reading`, and a list `others`"
        )
    return ContextBound(value["needs"], value["reading"], _parse_strings("context_bound.others", value.get("others")))
