"""The annotation file of a split: recordings, their clips in signing order, and the text of each clip."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.files import read_json
from signllava_cli.recipe import is_unicode


@dataclass(frozen=True)
class ContextBound:
    """Why a clip cannot be translated without context, and what tells a right reading from a wrong one.

    `needs` is where the deciding sentence stands: `prelude` (the first sentences of the recording) or
    `window` (one of the last). `reading` is the word that only the context gives; `others` are the words
    that the same signs would stand for in another context.
    """

    needs: str
    reading: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """One sentence of a recording.

    `position` counts from 0 in signing order; `start` and `end` are seconds in the recording's video, where the
    source told them. `row` counts the clips of the split in dataset order, for a clip of an opened split.
    `source` holds the identifying columns of the table that the clip was imported from, by their names in lower
    case, as in `{"video_id": "v"}`; patterns of `prepare pack` may use them. The index does not hold it.
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
    """One signer's continuous video: its clips in signing order. Context never leaves it."""

    name: str
    clips: tuple[Clip, ...]


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """The key of natural order, in which `clip9` stands before `clip10`."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"([0-9]+)", name)]


def annotation_file(root: Path, split: str) -> Path:
    """`annotation.{split}.json` in the dataset folder `root`."""
    return root / f"annotation.{split}.json"


@dataclass(frozen=True)
class AnnotationError:
    """What keeps a part of an annotation file from being used.

    `kind` is the name of the validation's finding; `clip` is None where the error is one of the recording.
    """

    kind: str
    recording: str
    clip: str | None
    says: str

    @property
    def name(self) -> str:
        """`recording/clip`, or the recording."""
        return self.recording if self.clip is None else f"{self.recording}/{self.clip}"


def read_annotations(root: Path, split: str) -> list[Recording]:
    """The recordings of `split`, in the order of the file.

    Raises:
        UserError: the folder or file is missing, is not JSON, or has a error of `parse_annotations`.
    """
    file = annotation_file(root, split)
    if not root.is_dir():
        raise UserError(f"No data folder at {root}: set data.root, or make one with `signllava prepare`.")
    if not file.is_file():
        there = sorted(path.name for path in root.glob("annotation.*.json"))
        raise UserError(
            f"No {file.name} in {root}; annotation files there: {', '.join(there) or 'none'}. Name a split that is "
            "there: data.train, data.dev, generate.split, generate.context_from, --split, --context-from."
        )
    recordings, errors = parse_annotations(read_json(file))
    if errors:
        more = f" ({len(errors) - 1} more errors: `signllava prepare check {root}` lists them)" if errors[1:] else ""
        kind = "recording" if errors[0].clip is None else "clip"
        raise UserError(f"{file}, {kind} {errors[0].name!a}: {errors[0].says}{more}.".replace("\n", " "))
    if not any(recording.clips for recording in recordings):
        raise UserError(f"{file} holds no clips.")
    return recordings


def parse_annotations(content: Mapping[str, Any]) -> tuple[list[Recording], list[AnnotationError]]:
    """The recordings in `content`, the object of an annotation file, and what is wrong with it.

    A clip with a error is left out of its recording; the others keep their order.
    """
    errors: list[AnnotationError] = []
    recordings = [_recording(name, entry, errors) for name, entry in content.items()]
    return recordings, errors


def _recording(name: str, entry: Any, errors: list[AnnotationError]) -> Recording:
    def error(kind: str, says: str, clip: str | None = None) -> None:
        errors.append(AnnotationError(kind, name, clip, says))

    if unusable := _name_error(name):
        error("name-unusable", unusable)
    if not isinstance(entry, dict) or not isinstance(entry.get("clip_order"), list):
        error("recording-malformed", "expected an object with a `clip_order` list")
        return Recording(name, ())
    order = [str(clip) for clip in entry["clip_order"]]
    if no_texts := [clip for clip in entry["clip_order"] if not isinstance(clip, str)]:
        error("recording-malformed", f"clip_order holds {no_texts[0]!r}, which is no text")
    annotated = set(entry) - {"clip_order"}
    for clip, count in Counter(order).items():
        if count > 1:
            error("clip-order-repeats", f"clip_order repeats it {count} times", clip)
        if clip not in annotated:
            error("clip-order-unknown", "clip_order names it, but it has no entry", clip)
    for clip in sorted(annotated - set(order)):
        error("clip-order-misses", "clip_order misses it", clip)
    clips: list[Clip] = []
    for clip in dict.fromkeys(order):
        if clip in annotated:
            try:
                clips.append(_clip(name, len(clips), clip, entry[clip]))
            except _InvalidEntry as found:
                error(found.kind, str(found), clip)
    return Recording(name, tuple(clips))


class _InvalidEntry(Exception):
    """One clip cannot be used."""

    def __init__(self, kind: str, says: str) -> None:
        super().__init__(says)
        self.kind = kind


def _clip(recording: str, position: int, name: str, entry: Any) -> Clip:
    if unusable := _name_error(name):
        raise _InvalidEntry("name-unusable", unusable)
    if not isinstance(entry, dict) or not isinstance(entry.get("translation"), str):
        raise _InvalidEntry("clip-malformed", "expected an object with a `translation` text")
    if not is_unicode(entry["translation"]):
        raise _InvalidEntry("text-not-unicode", _NOT_UNICODE)
    if not entry["translation"].strip():
        raise _InvalidEntry("text-empty", "has an empty translation; take it out of the file and of its clip_order")
    return Clip(
        recording=recording,
        name=name,
        position=position,
        translation=entry["translation"],
        paraphrases=_texts("paraphrases", entry.get("paraphrases")),
        keywords=_texts("keywords", entry.get("keywords")),
        context_bound=_context_bound(entry.get("context_bound")),
        start=_seconds("start", entry.get("start")),
        end=_seconds("end", entry.get("end")),
        source=_source(entry.get("source")),
    )


_NOT_UNICODE = "half a surrogate pair (\\ud800 to \\udfff) is no text"


def _name_error(name: str) -> str | None:
    """HDF5 takes `/` and `.` for paths: two such names could mean the same frames, and have the same id."""
    if not name or "/" in name or name == ".":
        return "a name may not be empty, be `.`, or hold `/`"
    return None if is_unicode(name) else _NOT_UNICODE


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and is_unicode(text) for text in value):
        raise _InvalidEntry("clip-malformed", f"`{key}` is not a list of texts")
    return tuple(value)


def _seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise _InvalidEntry("clip-malformed", f"`{key}` is no number of seconds")
    return float(value)


def _source(value: Any) -> dict[str, str]:
    """The texts of `source`, a key that other tools may use for something else."""
    columns = value.items() if isinstance(value, dict) else ()
    return {column: cell for column, cell in columns if isinstance(cell, str) and is_unicode(cell)}


def _context_bound(mark: Any) -> ContextBound | None:
    if mark is None:
        return None
    if not isinstance(mark, dict) or not all(isinstance(mark.get(key), str) for key in ("needs", "reading")):
        raise _InvalidEntry(
            "clip-malformed", "`context_bound` needs the texts `needs` and `reading`, and a list `others`"
        )
    return ContextBound(mark["needs"], mark["reading"], _texts("context_bound.others", mark.get("others")))
