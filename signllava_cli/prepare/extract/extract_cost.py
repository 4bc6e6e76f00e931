"""`prepare extract --dry-run`: the hours and the disk that an extraction will take, from a timed sample."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from signllava_cli.console import print_line, print_table, warning
from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.prepare.extract.clip_extractor import ClipVideo, ExtractedClip, ExtractorSettings
from signllava_cli.prepare.extract.extract import ExtractRequest
from signllava_cli.prepare.extract.find_videos import find_videos
from signllava_cli.prepare.extract.pose_features import BOX_PARTS
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut, read_video_info, require_av

MAX_HEADERS = 200  # files whose headers are read, evenly spaced
SAMPLE_CLIPS, SAMPLE_SECONDS = 8, 20.0  # clips of the sample, evenly spaced, and how long it may take


@dataclass(frozen=True)
class SampleCost:
    """A sample: its `frames`, `core_seconds` of all threads, `seconds` by the clock, and `bytes` of its arrays."""

    frames: int
    core_seconds: float
    seconds: float
    bytes: int


def estimate_cost(request: ExtractRequest) -> dict[str, SampleCost]:
    """Print the expected hours and disk of each stream. Nothing is written.

    Raises:
        UserError: no video is found, or none of a sample can be read.
    """
    require_av()
    videos = find_videos(request.videos, read_annotations(request.root, request.split))
    if not videos.cuts:
        raise UserError(f"None of the clips has a cut to extract ({next(iter(videos.unusable.values()))}).")
    frames = _count_frames(list(videos.cuts.values()))
    costs = {name: _time_sample(settings, videos.cuts) for name, settings in request.streams.items()}
    rows = []
    for name, cost in costs.items():
        scale = frames / cost.frames
        core_hours = scale * cost.core_seconds / 3600
        rows.append(
            (
                name,
                f"{cost.frames / cost.core_seconds:.1f}",
                f"{core_hours:.2f}",
                f"{core_hours / request.workers / request.share.count:.2f}",
                f"{scale * cost.seconds / 3600:.2f}" if _uses_gpu(request.streams[name]) else "-",
                f"{scale * cost.bytes / 1e9:.2f}",
            )
        )
    jobs = f" x {request.share.count} jobs" if request.share.count > 1 else ""
    hours = f"hours, {format_count(request.workers, 'worker')}{jobs}"
    columns = ("stream", "frames / core second", "core hours", hours, "GPU hours", "disk, GB")
    clips = f"{len(videos.cuts):,} {'clip' if len(videos.cuts) == 1 else 'clips'}"
    print_table(f"about {frames:,.0f} frames in {clips}", columns, rows)
    if videos.missing:
        warning(
            f"{format_count(len(videos.missing), 'clip has', 'clips have')} no video "
            f"({summarize_names(videos.missing)})"
        )
    print_line(
        "measured on a sample on this machine; the GPU hours are those of one process, which decodes with one core"
    )
    return costs


def _uses_gpu(settings: ExtractorSettings) -> bool:
    return str(getattr(settings, "device", "cpu")).startswith("cuda")


def _count_frames(cuts: list[VideoCut]) -> float:
    """The frames of all cuts; rate and length of files beyond the first `MAX_HEADERS` are the means of these."""
    is_whole = {cut.file: cut.start is None or cut.end is None for cut in cuts}
    infos = {}
    for file in list(is_whole)[:: -(-len(is_whole) // MAX_HEADERS)]:
        try:
            infos[file] = read_video_info(file)
        except UnreadableClip:
            continue
    if not infos:
        raise UserError(f"None of the videos in {cuts[0].file.parent} can be read.")
    mean_fps = float(np.mean([each.fps for each in infos.values()]))
    lengths = [each.seconds or 0 for file, each in infos.items() if is_whole[file]]
    frames = 0.0
    for cut in cuts:
        header = infos.get(cut.file)
        if cut.start is None or cut.end is None:
            seconds = float(np.mean(lengths or [0])) if header is None else header.seconds or 0
        else:
            seconds = max(0.0, cut.end - cut.start)
        frames += seconds * (mean_fps if header is None else header.fps)
    return frames


def _time_sample(settings: ExtractorSettings, cuts: Mapping[str, VideoCut]) -> SampleCost:
    """Extract clips that are evenly spaced over the split, the first one untimed, since it loads what is needed."""
    extractor = settings.open()
    frames, core_seconds, seconds, num_bytes = 0, 0.0, 0.0, 0
    is_warm = False
    for clip, cut in list(cuts.items())[:: -(-len(cuts) // SAMPLE_CLIPS)]:
        try:
            video = _sample_video(clip, cut, settings.needs_boxes)
            if not is_warm:
                extractor.extract(video)
                is_warm = True
            start, core_start = time.monotonic(), _core_seconds()
            extracted = extractor.extract(video)
        except UnreadableClip as error:
            warning(f"{clip}: {error}")
            continue
        seconds += time.monotonic() - start
        core_seconds += _core_seconds() - core_start
        frames += len(extracted.features.frames)
        num_bytes += _stored_bytes(extracted)
        if seconds > SAMPLE_SECONDS:
            break
    if not frames:
        raise UserError("None of the sampled clips can be extracted.")
    return SampleCost(frames, max(core_seconds, 1e-6), seconds, num_bytes)


def _sample_video(clip: str, cut: VideoCut, needs_boxes: bool) -> ClipVideo:
    """A clip, with boxes in the middle of each frame: the cost does not depend on where they are."""
    recording, _, name = clip.partition("/")
    if not needs_boxes:
        return ClipVideo(recording, name, cut)
    sizes = [frame.image.shape for frame in decode_cut(cut)]
    box = [sizes[0][1] / 2, sizes[0][0] / 2, sizes[0][0] / 5]
    return ClipVideo(recording, name, cut, np.tile(np.array(box, np.float32), (len(sizes), len(BOX_PARTS), 1)))


def _core_seconds() -> float:
    """The seconds that all threads of this process have computed."""
    times = os.times()
    return times.user + times.system


def _stored_bytes(extracted: ExtractedClip) -> int:
    return extracted.features.frames.nbytes + sum(values.nbytes for values in extracted.arrays.values())
