"""The report of an extraction: what was left out and why, and how well landmarks were found, by recording."""

from collections.abc import Mapping, Sequence
from typing import Any

from signllava_cli.console import info, warning
from signllava_cli.errors import format_count, summarize_names
from signllava_cli.prepare.extract.pose_quality import HANDS, NAMES, PoseQuality
from signllava_cli.prepare.extract.recording_files import ExtractPaths, RecordingResult
from signllava_cli.prepare.pack.find_clips import ClipLocations

NUM_WORST = 12  # clips that the contact sheet shows
MANY_JUMPS = 1  # jumps of the shoulders' center from which a clip is named


def make_report(
    stream: str,
    split: str,
    digest: str,
    settings: Mapping[str, object],
    results: Mapping[str, RecordingResult],
    locations: ClipLocations,
) -> dict[str, Any]:
    """The content of the report file. It depends only on videos, annotation and settings."""
    report: dict[str, Any] = {
        "stream": stream,
        "split": split,
        "digest": digest,
        "settings": dict(settings),
        "clips_annotated": len(locations.sources) + len(locations.unusable) + len(locations.missing),
        "clips_extracted": len(locations.sources),
        "skipped": locations.unusable,
        "missing": locations.missing,
    }
    qualities = {
        f"{recording}/{clip}": PoseQuality.from_json(quality)
        for recording, result in results.items()
        for clip, quality in result.quality.items()
        if quality is not None
    }
    return report | _quality_report(qualities) if qualities else report


def _quality_report(qualities: Mapping[str, PoseQuality]) -> dict[str, Any]:
    by_recording: dict[str, list[PoseQuality]] = {}
    for clip, quality in qualities.items():
        by_recording.setdefault(clip.partition("/")[0], []).append(quality)
    return {
        **_summarize(list(qualities.values())),
        "rotated": [clip for clip, quality in qualities.items() if quality.rotation],
        "several_people": [clip for clip, quality in qualities.items() if quality.has_other_people],
        "jumps": {clip: quality.jumps for clip, quality in qualities.items() if quality.jumps >= MANY_JUMPS},
        "worst": _worst_clips(qualities),
        "recordings": {recording: _summarize(clips) for recording, clips in by_recording.items()},
    }


def _summarize(clips: Sequence[PoseQuality]) -> dict[str, Any]:
    """The share of frames with each part, and the longest gap, over some clips."""
    frames = sum(clip.frames for clip in clips)
    return {
        "clips": len(clips),
        "frames": frames,
        "share": {part: round(sum(clip.found[part] for clip in clips) / frames, 4) for part in NAMES.values()},
        "longest_gap": {part: max(clip.longest_gap[part] for clip in clips) for part in NAMES.values()},
    }


def _worst_clips(qualities: Mapping[str, PoseQuality]) -> list[str]:
    """The clips that are worth a look: several people and jumps first, then those with the fewest hands."""

    def rank(clip: str) -> tuple[bool, float]:
        quality = qualities[clip]
        is_suspicious = quality.has_other_people or quality.jumps >= MANY_JUMPS
        return not is_suspicious, sum(quality.share(hand) for hand in HANDS)

    return sorted(qualities, key=rank)[:NUM_WORST]


def print_report(report: Mapping[str, Any], paths: ExtractPaths) -> None:
    """Print the shares of frames, and a warning for each kind of clip that should be looked at."""
    if "share" in report:
        shares = ", ".join(f"{part.replace('_', ' ')} {share:.1%}" for part, share in report["share"].items())
        info(f"found in {format_count(report['frames'], 'frame')}: {shares}")
        if turned := report["rotated"]:
            info(f"{format_count(len(turned), 'clip was', 'clips were')} turned upright ({summarize_names(turned)})")
        if several := report["several_people"]:
            count = format_count(len(several), "clip shows", "clips show")
            warning(f"{count} several people, of whom one was followed ({summarize_names(several)})")
        if jumps := report["jumps"]:
            count = format_count(len(jumps), "clip", "clips")
            warning(f"the signer jumps in {count}, perhaps to somebody else ({summarize_names(jumps)})")
        info(f"contact sheet: {paths.contact_sheet}")
    info(f"report: {paths.report}")
