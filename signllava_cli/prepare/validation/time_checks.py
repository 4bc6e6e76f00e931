"""Checks the times of clips: wrong order, overlaps, short clips, duplicates."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.errors import summarize_names
from signllava_cli.prepare.validation.checks import MAX_OVERLAP_SECONDS, MIN_CLIP_SECONDS
from signllava_cli.prepare.validation.findings import Findings

_FRAMES_IN_NAME = re.compile(r"\.(\d{6,})-(\d{6,})$")


@dataclass(frozen=True)
class ClipTimes:
    """Seconds in the video of the recording; `end` is None if the source has none."""

    start: float
    end: float | None


def clip_times(clip: Clip, fps: float) -> ClipTimes | None:
    """The clip's times, else those in its name, in frames: `{video}.{start:06d}-{end:06d}`."""
    if clip.start is not None:
        return ClipTimes(clip.start, clip.end)
    frames = _FRAMES_IN_NAME.search(clip.name)
    return ClipTimes(int(frames[1]) / fps, int(frames[2]) / fps) if frames else None


def check_times(split: str, recordings: Iterable[Recording], fps: float, findings: Findings) -> None:
    """Add the findings of the times of the clips of each recording."""
    for recording in recordings:
        timed_clips = [(clip, times) for clip in recording.clips if (times := clip_times(clip, fps))]
        last_start = -1.0
        for clip, times in timed_clips:
            if times.start < last_start:
                findings.add("clip-order-time", [clip.id], split)
            last_start = times.start
            if times.end is not None and times.end < times.start:
                findings.add("clip-time-reversed", [clip.id], split)
            elif times.end is not None and times.end - times.start < MIN_CLIP_SECONDS:
                findings.add("clip-short", [clip.id], split)
        reason = _find_mixed_signers(recording)
        name = "clips-overlap-signers" if reason else "clips-overlap"
        findings.add(name, _find_overlaps(timed_clips), split, detail=f"{recording.name}: {reason}" if reason else "")
        findings.add("clip-duplicate", find_duplicates(recording.clips, fps), split)


def _find_mixed_signers(recording: Recording) -> str:
    """Why `recording` seems to hold several signers, or several annotations of one; empty if it does not."""
    videos = dict.fromkeys(clip.source["video_name"] for clip in recording.clips if "video_name" in clip.source)
    if len(videos) > 1:
        return f"clips of {summarize_names(videos)}"
    counts = Counter(clip.translation.strip() for clip in recording.clips)
    num_repeated = sum(count for count in counts.values() if count > 1)
    if num_repeated > len(recording.clips) / 2:
        return f"{num_repeated} of {len(recording.clips)} clips have the text of another"
    return ""


def _find_overlaps(timed_clips: Iterable[tuple[Clip, ClipTimes]]) -> list[str]:
    """The clips that begin before the end of an earlier clip."""
    overlapping, last_end = [], 0.0
    for clip, times in sorted(timed_clips, key=lambda pair: pair[1].start):
        if times.start < last_end - MAX_OVERLAP_SECONDS:
            overlapping.append(clip.id)
        last_end = max(last_end, times.end or 0.0)
    return overlapping


def find_duplicates(clips: Iterable[Clip], fps: float) -> list[str]:
    """The clips with the text and the times of an earlier clip."""
    keys, duplicates = set(), []
    for clip in clips:
        if times := clip_times(clip, fps):
            key = (clip.translation.strip(), times)
            if key in keys:
                duplicates.append(clip.id)
            keys.add(key)
    return duplicates
