"""A fixed copy of an annotation file: what validation can put right, counted by the finding it answers."""

import json
from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Clip, annotation_file, parse_annotations
from signllava_cli.data.words import is_placeholder
from signllava_cli.files import write_text
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.findings import Finding
from signllava_cli.prepare.validation.text_checks import (
    is_same_text,
    is_sound_caption,
    keywords_as_written,
    shared_paraphrases,
)
from signllava_cli.prepare.validation.time_checks import clip_times, find_duplicates

ORDER = "clip_order"


@dataclass
class FixResult:
    """A fixed split: the `content` for its file, and the names that each finding was fixed at."""

    split: str
    content: dict[str, Any]
    done: dict[str, list[str]] = field(default_factory=dict)

    def note(self, finding: str, name: str) -> None:
        """Count `name` to the fixed ones of `finding`."""
        self.done.setdefault(finding, []).append(name)


def write_fixed(root: Path, split: AnnotatedSplit, findings: Iterable[Finding], fps: float) -> None:
    """Write a fixed copy of the split's annotation to `annotation.{split}.fixed.json`, and say what became of it.

    Nothing is written where nothing can be fixed, where no clip would be left, or where a key was given twice: only
    a person can tell which of the two is meant.

    Raises:
        UserError: the file cannot be written.
    """
    file, fixed = annotation_file(root, split.name), root / f"annotation.{split.name}.fixed.json"
    mended = fix_split(split, findings, fps)
    clips = sum(len(entry[ORDER]) for entry in mended.content.values())
    if not mended.done:
        info(f"{file.name}: nothing that --fix can fix.")
    elif not split.is_fixable:
        warning(f"{file.name} gives a key twice: fix that by hand first; no fixed file is written.")
    elif not clips:
        warning(f"{file.name}: no clip would be left; no fixed file is written.")
    else:
        # in ASCII: a key that we do not know may hold what UTF-8 cannot
        write_text(fixed, json.dumps(mended.content, indent=2) + "\n")
        counts = ", ".join(f"{name} {len(names)}" for name, names in mended.done.items())
        info(f"{fixed}: fixed {counts}; {clips} clips are left.")
        info(f"To use it, keeping what was: mv -n {file} {file}.before; mv {fixed} {file}")


def fix_split(split: AnnotatedSplit, findings: Iterable[Finding], fps: float) -> FixResult:
    """The split with everything fixable fixed.

    Orders first, so that clips which clip_order misses are looked at, too; then clips that cannot be used go, and
    what is left of the others is put right. What an entry says beyond our format stays.
    """
    mended = FixResult(split.name, {})
    for recording, entry in split.content.items():
        if isinstance(entry, dict):
            mended.content[recording] = {**entry, ORDER: _order(recording, entry, mended)}
        else:
            mended.note("recording-malformed", recording)
    _drop_invalid(mended, split.name, findings, fps)
    recordings, _ = parse_annotations(mended.content)
    forgotten = set(mended.done.get("clip-order-misses", ()))
    shared = set(shared_paraphrases(recordings))
    for read in recordings:
        entry = mended.content[read.name]
        placed = [clip for clip in entry[ORDER] if f"{read.name}/{clip}" not in forgotten]
        entry[ORDER] = _sort_by_time(read.clips, forgotten, fps)
        now = [clip for clip in entry[ORDER] if f"{read.name}/{clip}" not in forgotten]
        for before, after in zip(placed, now, strict=True):
            if before != after:
                mended.note("clip-order-time", f"{read.name}/{after}")
        for clip in read.clips:
            entry[clip.name] = _clip(clip, entry[clip.name], clip.id in shared, mended)
        if not entry[ORDER]:
            mended.note("recording-empty", read.name)
            del mended.content[read.name]
    return mended


def _order(recording: str, entry: Mapping[str, Any], mended: FixResult) -> list[str]:
    """Every clip of the recording once: in its order as far as there is one, forgotten ones at the end."""
    listed = entry.get(ORDER)
    if not isinstance(listed, list) or not all(isinstance(clip, str) for clip in listed):
        mended.note("recording-malformed", recording)
    listed = [str(clip) for clip in listed] if isinstance(listed, list) else []
    times_listed = Counter(listed)
    forgotten = [clip for clip in entry if clip != ORDER and clip not in times_listed]
    for finding, clips in (
        ("clip-order-unknown", [clip for clip in times_listed if clip not in entry or clip == ORDER]),
        ("clip-order-repeats", [clip for clip, count in times_listed.items() if count > 1]),
        ("clip-order-misses", forgotten),
    ):
        for clip in clips:
            mended.note(finding, f"{recording}/{clip}")
    return [clip for clip in times_listed if clip in entry and clip != ORDER] + forgotten


def _drop_invalid(mended: FixResult, split: str, findings: Iterable[Finding], fps: float) -> None:
    recordings, errors = parse_annotations(mended.content)
    for error in errors:
        if error.clip is None:
            del mended.content[error.recording]
            mended.note(error.kind, error.recording)
        elif error.recording in mended.content:
            _drop(mended, error.recording, error.clip, error.kind)
    without_features = {
        name: finding.name
        for finding in findings
        if finding.fixable and finding.stream and finding.split == split
        for name in finding.names
    }
    for recording in recordings:
        if recording.name not in mended.content:
            continue
        kept = []
        for clip in recording.clips:
            reason = without_features.get(clip.id) or without_features.get(recording.name)
            if is_placeholder(clip.translation):
                reason = "text-nan"
            elif is_sound_caption(clip.translation):
                reason = "text-is-sound-caption"
            if reason:
                _drop(mended, clip.recording, clip.name, reason)
            else:
                kept.append(clip)
        for clip_id in find_duplicates(kept, fps):
            _drop(mended, recording.name, clip_id.partition("/")[2], "clip-duplicate")
    for entry in mended.content.values():
        entry[ORDER] = [clip for clip in entry[ORDER] if clip in entry]


def _drop(mended: FixResult, recording: str, clip: str, finding: str) -> None:
    del mended.content[recording][clip]
    mended.note(finding, f"{recording}/{clip}")


def _sort_by_time(clips: Sequence[Clip], forgotten: Container[str], fps: float) -> list[str]:
    """The names of the clips, those with times in the order of their starts.

    Clips without times keep their places. A clip whose id is in `forgotten` has no place yet: it goes before the
    first that starts after it, or to the end.
    """
    starts = {clip.name: times.start for clip in clips if (times := clip_times(clip, fps))}
    placed = [clip.name for clip in clips if clip.id not in forgotten]
    timed = iter(sorted((clip for clip in placed if clip in starts), key=lambda clip: starts[clip]))
    waiting = deque(
        sorted(
            (clip.name for clip in clips if clip.id in forgotten),
            key=lambda clip: starts.get(clip, float("inf")),
        )
    )
    ordered: list[str] = []
    for clip in (next(timed) if clip in starts else clip for clip in placed):
        while waiting and clip in starts and starts.get(waiting[0], float("inf")) < starts[clip]:
            ordered.append(waiting.popleft())
        ordered.append(clip)
    return [*ordered, *waiting]


def _clip(clip: Clip, entry: Mapping[str, Any], has_shared: bool, mended: FixResult) -> dict[str, Any]:
    """The entry of a clip with paraphrases that say something, and keywords as they stand in its sentence.

    `has_shared`: its paraphrases are also those of a clip with another translation.
    """
    if has_shared:
        mended.note("paraphrases-shared", clip.id)
    paraphrases = []
    for text in clip.paraphrases if not has_shared else ():
        if is_placeholder(text):
            mended.note("paraphrase-none", clip.id)
        elif is_same_text(text, clip.translation):
            mended.note("paraphrase-equals-text", clip.id)
        else:
            paraphrases.append(text)
    keywords: dict[str, None] = {}
    for keyword, stands in zip(clip.keywords, keywords_as_written(clip.translation, clip.keywords), strict=True):
        if stands is None:
            mended.note("keyword-not-in-sentence", clip.id)
        else:
            keywords[stands] = None
            if stands != keyword:
                mended.note("keyword-case", clip.id)
    return {
        **entry,
        **({"paraphrases": paraphrases} if clip.paraphrases else {}),
        **({"keywords": list(keywords)} if clip.keywords else {}),
    }
