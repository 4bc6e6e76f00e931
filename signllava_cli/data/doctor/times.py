"""When clips begin and end: out of order, overlapping, too short, or the same clip twice."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.doctor.catalogue import OVERLAP, SHORT_CLIP
from signllava_cli.data.doctor.findings import Findings

_FRAMES_IN_NAME = re.compile(r"\.(\d{6,})-(\d{6,})$")


@dataclass(frozen=True)
class Times:
    """Seconds in the video of the recording; `end` is None where the source does not tell it."""

    start: float
    end: float | None


def times_of(clip: Clip, fps: float) -> Times | None:
    """The clip's times, else those that its name tells in frames: `{video}.{start:06d}-{end:06d}`."""
    if clip.start is not None:
        return Times(clip.start, clip.end)
    frames = _FRAMES_IN_NAME.search(clip.name)
    return Times(int(frames[1]) / fps, int(frames[2]) / fps) if frames else None


def check_times(split: str, recordings: Iterable[Recording], fps: float, findings: Findings) -> None:
    """What the times of the clips of each recording say against it."""
    for recording in recordings:
        timed = [(clip, times) for clip in recording.clips if (times := times_of(clip, fps))]
        last = -1.0
        for clip, times in timed:
            if times.start < last:
                findings.add("clip-order-time", [clip.id], split)
            last = times.start
            if times.end is not None and times.end < times.start:
                findings.add("clip-time-reversed", [clip.id], split)
            elif times.end is not None and times.end - times.start < SHORT_CLIP:
                findings.add("clip-short", [clip.id], split)
        findings.add("clips-overlap", _overlapping(timed), split)
        findings.add("clip-duplicate", duplicates(recording.clips, fps), split)


def _overlapping(timed: Iterable[tuple[Clip, Times]]) -> list[str]:
    """The clips that begin before one that began earlier has ended."""
    found, ended = [], 0.0
    for clip, times in sorted(timed, key=lambda pair: pair[1].start):
        if times.start < ended - OVERLAP:
            found.append(clip.id)
        ended = max(ended, times.end or 0.0)
    return found


def duplicates(clips: Iterable[Clip], fps: float) -> list[str]:
    """The clips that have text and times of an earlier one of `clips`."""
    seen, found = set(), []
    for clip in clips:
        if times := times_of(clip, fps):
            key = (clip.translation.strip(), times)
            if key in seen:
                found.append(clip.id)
            seen.add(key)
    return found
