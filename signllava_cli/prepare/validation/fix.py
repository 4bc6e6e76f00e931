"""Writes a fixed copy of an annotation file, and counts the fixes by finding."""

import itertools
import json
import os
import shlex
from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Clip, annotation_file, parse_annotations
from signllava_cli.data.words import is_placeholder
from signllava_cli.errors import format_count
from signllava_cli.files import write_text
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.findings import Finding
from signllava_cli.prepare.validation.text_checks import (
    is_same_text,
    keywords_as_written,
    shared_paraphrases,
)
from signllava_cli.prepare.validation.time_checks import clip_times, find_duplicates

ORDER = "clip_order"


@dataclass
class FixResult:
    """A fixed split: `content` is the JSON object of its file; `fixed`: finding -> the fixed names."""

    split: str
    content: dict[str, Any]
    fixed: dict[str, list[str]] = field(default_factory=dict)

    def add(self, finding: str, name: str) -> None:
        """Record that `name` of `finding` was fixed."""
        self.fixed.setdefault(finding, []).append(name)


def write_fixed(root: Path, split: AnnotatedSplit, findings: Iterable[Finding], fps: float) -> None:
    """Write a fixed copy of the split's annotation to `annotation.{split}.fixed.json`, and print what was fixed.

    No file is written if there is nothing to fix, if no clip would remain, or if a key is duplicate: only a person
    knows which of its values is right.

    Raises:
        UserError: the file cannot be written.
    """
    file, fixed_file = annotation_file(root, split.name), root / f"annotation.{split.name}.fixed.json"
    result = fix_split(split, findings, fps)
    num_clips = sum(len(entry[ORDER]) for entry in result.content.values())
    if not result.fixed:
        info(f"{file.name}: nothing that --fix can fix.")
    elif not split.is_fixable:
        warning(f"{file.name} has a duplicate key; fix it by hand first. No fixed file is written.")
    elif not num_clips:
        warning(f"{file.name}: no clip would remain; no fixed file is written.")
    else:
        # in ASCII: an unknown key may hold text that is not valid UTF-8
        write_text(fixed_file, json.dumps(result.content, indent=2) + "\n")
        counts = ", ".join(f"{name} {len(names)}" for name, names in result.fixed.items())
        info(f"{fixed_file}: fixed {counts}; {format_count(num_clips, 'clip remains', 'clips remain')}.")
        moves = ((file, _free_backup(file)), (fixed_file, file))
        commands = [shlex.join(["mv", "-n", str(source), str(target)]) for source, target in moves]
        info(f"To use it and keep the original: {' && '.join(commands)}")


def _free_backup(file: Path) -> Path:
    """A path beside the annotation `file` that does not exist.

    It is not that of `annotation_edits.backup_file`, which is the file before the first edit of its texts.
    """
    names = (f"{file.name}.unfixed{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
    return next(path for path in map(file.with_name, names) if not os.path.lexists(path))


def fix_split(split: AnnotatedSplit, findings: Iterable[Finding], fps: float) -> FixResult:
    """The split with all fixes applied.

    First clip_order is completed, so that clips missing in it are checked, too; then invalid clips are removed; then
    the texts of the others are fixed. Unknown keys of an entry are kept.
    """
    result = FixResult(split.name, {})
    for name, entry in split.content.items():
        if isinstance(entry, dict):
            result.content[name] = {**entry, ORDER: _complete_order(name, entry, result)}
        else:
            result.add("recording-malformed", name)
    _remove_invalid_clips(result, split.name, findings, fps)
    recordings, _ = parse_annotations(result.content)
    unordered = set(result.fixed.get("clip-order-misses", ()))
    with_shared_paraphrases = set(shared_paraphrases(recordings))
    for recording in recordings:
        entry = result.content[recording.name]
        old_order = [clip for clip in entry[ORDER] if f"{recording.name}/{clip}" not in unordered]
        entry[ORDER] = _sort_by_time(recording.clips, unordered, fps)
        new_order = [clip for clip in entry[ORDER] if f"{recording.name}/{clip}" not in unordered]
        for before, after in zip(old_order, new_order, strict=True):
            if before != after:
                result.add("clip-order-time", f"{recording.name}/{after}")
        for clip in recording.clips:
            entry[clip.name] = _fix_texts(clip, entry[clip.name], clip.id in with_shared_paraphrases, result)
        if not entry[ORDER]:
            result.add("recording-empty", recording.name)
            del result.content[recording.name]
    return result


def _complete_order(recording: str, entry: Mapping[str, Any], result: FixResult) -> list[str]:
    """Every clip of the recording once: first those in clip_order, then those missing in it."""
    order = entry.get(ORDER)
    if not isinstance(order, list) or not all(isinstance(clip, str) for clip in order):
        result.add("recording-malformed", recording)
    order = [str(clip) for clip in order] if isinstance(order, list) else []
    counts = Counter(order)
    unordered = [clip for clip in entry if clip != ORDER and clip not in counts]
    for finding, clips in (
        ("clip-order-unknown", [clip for clip in counts if clip not in entry or clip == ORDER]),
        ("clip-order-repeats", [clip for clip, count in counts.items() if count > 1]),
        ("clip-order-misses", unordered),
    ):
        for clip in clips:
            result.add(finding, f"{recording}/{clip}")
    return [clip for clip in counts if clip in entry and clip != ORDER] + unordered


def _remove_invalid_clips(result: FixResult, split: str, findings: Iterable[Finding], fps: float) -> None:
    recordings, errors = parse_annotations(result.content)
    for error in errors:
        if error.clip is None:
            del result.content[error.recording]
            result.add(error.kind, error.recording)
        elif error.recording in result.content:
            _remove_clip(result, error.recording, error.clip, error.kind)
    finding_of = {  # recording or clip -> finding of its features
        name: finding.name
        for finding in findings
        if finding.fixable and finding.stream and finding.split == split
        for name in finding.names
    }
    for recording in recordings:
        if recording.name not in result.content:
            continue
        valid_clips = []
        for clip in recording.clips:
            finding_name = finding_of.get(clip.id) or finding_of.get(recording.name)
            if is_placeholder(clip.translation):
                finding_name = "text-nan"
            if finding_name:
                _remove_clip(result, clip.recording, clip.name, finding_name)
            else:
                valid_clips.append(clip)
        for clip_id in find_duplicates(valid_clips, fps):
            _remove_clip(result, recording.name, clip_id.partition("/")[2], "clip-duplicate")
    for entry in result.content.values():
        entry[ORDER] = [clip for clip in entry[ORDER] if clip in entry]


def _remove_clip(result: FixResult, recording: str, clip: str, finding: str) -> None:
    del result.content[recording][clip]
    result.add(finding, f"{recording}/{clip}")


def _sort_by_time(clips: Sequence[Clip], unordered: Container[str], fps: float) -> list[str]:
    """The names of the clips, those with times in the order of their starts.

    Clips without times keep their index. A clip whose id is in `unordered` is inserted before the first clip that
    starts later, or at the end.
    """
    starts = {clip.name: times.start for clip in clips if (times := clip_times(clip, fps))}
    ordered = [clip.name for clip in clips if clip.id not in unordered]
    timed = iter(sorted((clip for clip in ordered if clip in starts), key=lambda clip: starts[clip]))
    pending = deque(
        sorted(
            (clip.name for clip in clips if clip.id in unordered),
            key=lambda clip: starts.get(clip, float("inf")),
        )
    )
    result: list[str] = []
    for clip in (next(timed) if clip in starts else clip for clip in ordered):
        while pending and clip in starts and starts.get(pending[0], float("inf")) < starts[clip]:
            result.append(pending.popleft())
        result.append(clip)
    return [*result, *pending]


def _fix_texts(clip: Clip, entry: Mapping[str, Any], has_shared: bool, result: FixResult) -> dict[str, Any]:
    """The entry of a clip without placeholder paraphrases, and with keywords spelled as in its sentence.

    `has_shared`: another clip with another translation has the same paraphrases.
    """
    if has_shared:
        result.add("paraphrases-shared", clip.id)
    paraphrases = []
    for text in clip.paraphrases if not has_shared else ():
        if is_placeholder(text):
            result.add("paraphrase-none", clip.id)
        elif is_same_text(text, clip.translation):
            result.add("paraphrase-equals-text", clip.id)
        else:
            paraphrases.append(text)
    keywords: dict[str, None] = {}
    for keyword, written in zip(clip.keywords, keywords_as_written(clip.translation, clip.keywords), strict=True):
        if written is None:
            result.add("keyword-not-in-sentence", clip.id)
        else:
            keywords[written] = None
            if written != keyword:
                result.add("keyword-case", clip.id)
    return {
        **entry,
        **({"paraphrases": paraphrases} if clip.paraphrases else {}),
        **({"keywords": list(keywords)} if clip.keywords else {}),
    }
