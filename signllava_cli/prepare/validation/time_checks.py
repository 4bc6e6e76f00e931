"""When clips begin and end: out of order, overlapping, too short, or the same clip twice."""

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
    """Seconds in the video of the recording; `end` is None where the source does not tell it."""

    start: float
    end: float | None


def clip_times(clip: Clip, fps: float) -> ClipTimes | None:
    """The clip's times, else those that its name tells in frames: `{video}.{start:06d}-{end:06d}`."""
    if clip.start is not None:
        return ClipTimes(clip.start, clip.end)
    frames = _FRAMES_IN_NAME.search(clip.name)
    return ClipTimes(int(frames[1]) / fps, int(frames[2]) / fps) if frames else None


def check_times(split: str, recordings: Iterable[Recording], fps: float, findings: Findings) -> None:
    """What the times of the clips of each recording say against it."""
    for recording in recordings:
        timed = [(clip, times) for clip in recording.clips if (times := clip_times(clip, fps))]
        last = -1.0
        for clip, times in timed:
            if times.start < last:
                findings.add("clip-order-time", [clip.id], split)
            last = times.start
            if times.end is not None and times.end < times.start:
                findings.add("clip-time-reversed", [clip.id], split)
            elif times.end is not None and times.end - times.start < MIN_CLIP_SECONDS:
                findings.add("clip-short", [clip.id], split)
        mixed = _mixed(recording)
        kind = "clips-overlap-signers" if mixed else "clips-overlap"
        findings.add(kind, _find_overlaps(timed), split, detail=f"{recording.name}: {mixed}" if mixed else "")
        findings.add("clip-duplicate", find_duplicates(recording.clips, fps), split)


def _mixed(recording: Recording) -> str:
    """What tells that several signers, or several annotations of one, are in `recording`; empty if nothing does."""
    videos = dict.fromkeys(clip.source["video_name"] for clip in recording.clips if "video_name" in clip.source)
    if len(videos) > 1:
        return f"clips of {summarize_names(videos)}"
    counts = Counter(clip.translation.strip() for clip in recording.clips)
    repeated = sum(count for count in counts.values() if count > 1)
    if repeated > len(recording.clips) / 2:
        return f"{repeated} of {len(recording.clips)} clips say what another says"
    return ""


def _find_overlaps(timed: Iterable[tuple[Clip, ClipTimes]]) -> list[str]:
    """The clips that begin before one that began earlier has ended."""
    found, ended = [], 0.0
    for clip, times in sorted(timed, key=lambda pair: pair[1].start):
        if times.start < ended - MAX_OVERLAP_SECONDS:
            found.append(clip.id)
        ended = max(ended, times.end or 0.0)
    return found


def find_duplicates(clips: Iterable[Clip], fps: float) -> list[str]:
    """The clips that have text and times of an earlier one of `clips`."""
    seen, found = set(), []
    for clip in clips:
        if times := clip_times(clip, fps):
            key = (clip.translation.strip(), times)
            if key in seen:
                found.append(clip.id)
            seen.add(key)
    return found
