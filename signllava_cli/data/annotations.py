"""The annotation file of a split: recordings, their clips in signing order, and the text of each clip."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError, first_names
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


@dataclass(frozen=True)
class Clip:
    """One sentence of a recording.

    `position` counts from 0 in signing order; `start` and `end` are seconds in the recording's video, where the
    source told them.
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

    @property
    def id(self) -> str:
        """`recording/clip`, unique in a split."""
        return f"{self.recording}/{self.name}"


@dataclass(frozen=True)
class Recording:
    """One signer's continuous video: its clips in signing order. Context never leaves it."""

    name: str
    clips: tuple[Clip, ...]


def annotation_file(root: Path, split: str) -> Path:
    """`annotation.{split}.json` in the dataset folder `root`."""
    return root / f"annotation.{split}.json"


def read_annotations(root: Path, split: str) -> list[Recording]:
    """The recordings of `split`, in the order of the file.

    Raises:
        UserError: the folder or file is missing, is not JSON, or a `clip_order` misses or repeats clips, or a
            clip has no text to learn or to be scored against.
    """
    file = annotation_file(root, split)
    if not root.is_dir():
        raise UserError(f"No data folder at {root}: set data.root, or make one with `signllava prepare`.")
    if not file.is_file():
        there = sorted(path.name for path in root.glob("annotation.*.json"))
        raise UserError(f"No {file.name} in {root}; annotation files there: {', '.join(there) or 'none'}.")
    content = read_json(file)
    recordings = [_recording(file, name, entry) for name, entry in content.items()]
    if not any(recording.clips for recording in recordings):
        raise UserError(f"{file} holds no clips.")
    textless = [clip.id for each in recordings for clip in each.clips if not clip.translation.strip()]
    if textless:
        raise UserError(
            f"{file}: {len(textless)} clips have an empty translation ({first_names(textless)}); "
            "take them out of the file and of its clip_order."
        )
    return recordings


def _recording(file: Path, name: str, entry: Any) -> Recording:
    where = f"{file}, recording {name}"
    _require_plain_name(where, name)
    if not isinstance(entry, dict) or not isinstance(entry.get("clip_order"), list):
        raise UserError(f"{where}: expected an object with a `clip_order` list.")
    order = [str(clip) for clip in entry["clip_order"]]
    annotated = set(entry) - {"clip_order"}
    faults = {
        "names clips that have no entry": [clip for clip in order if clip not in annotated],
        "repeats clips": [clip for clip, count in Counter(order).items() if count > 1],
        "misses clips": sorted(annotated - set(order)),
    }
    for fault, clips in faults.items():
        if clips:
            raise UserError(f"{where}: clip_order {fault}: {first_names(clips)}.")
    return Recording(name, tuple(_clip(where, name, p, clip, entry[clip]) for p, clip in enumerate(order)))


def _clip(where: str, recording: str, position: int, name: str, entry: Any) -> Clip:
    where = f"{where}, clip {name}"
    _require_plain_name(where, name)
    if not isinstance(entry, dict) or not isinstance(entry.get("translation"), str):
        raise UserError(f"{where}: expected an object with a `translation` text.")
    if not all(is_unicode(text) for text in (recording, name, entry["translation"])):
        raise UserError(f"{where!a}: half a surrogate pair (\\ud800 to \\udfff) is no text.")
    return Clip(
        recording=recording,
        name=name,
        position=position,
        translation=entry["translation"],
        paraphrases=_texts(where, "paraphrases", entry.get("paraphrases")),
        keywords=_texts(where, "keywords", entry.get("keywords")),
        context_bound=_context_bound(where, entry.get("context_bound")),
        start=_seconds(where, "start", entry.get("start")),
        end=_seconds(where, "end", entry.get("end")),
    )


def _require_plain_name(where: str, name: str) -> None:
    """HDF5 takes `/` and `.` for paths: two such names could mean the same frames, and have the same id."""
    if not name or "/" in name or name == ".":
        raise UserError(f"{where}: a name may not be empty, be `.`, or hold `/`.")


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and is_unicode(text) for text in value):
        raise UserError(f"{where}: `{key}` is not a list of texts.")
    return tuple(value)


def _seconds(where: str, key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UserError(f"{where}: `{key}` is no number of seconds.")
    return float(value)


def _context_bound(where: str, mark: Any) -> ContextBound | None:
    if mark is None:
        return None
    if not isinstance(mark, dict) or not all(isinstance(mark.get(key), str) for key in ("needs", "reading")):
        raise UserError(f"{where}: `context_bound` needs the texts `needs` and `reading`, and a list `others`.")
    return ContextBound(mark["needs"], mark["reading"], _texts(where, "context_bound.others", mark.get("others")))
