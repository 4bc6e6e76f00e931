"""Finds the video and the cut of each clip in a folder: a file per clip, or a file per recording."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.prepare.extract.video_cuts import VideoCut
from signllava_cli.prepare.importers.split_names import describe_renamed_split

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".ts")


@dataclass(frozen=True)
class ClipVideos:
    """The annotated clips, by `recording/clip`: `cuts` to decode, `unusable` with the reason, `missing` videos."""

    cuts: dict[str, VideoCut]
    unusable: dict[str, str]
    missing: list[str]


def find_videos(folder: Path, recordings: Sequence[Recording]) -> ClipVideos:
    """The cut of each clip: the whole of `{recording}/{clip}.mp4` or `{clip}.mp4`, else a cut of `{recording}.mp4`.

    Raises:
        UserError: the folder is missing, or has no video of any clip.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        hint = describe_renamed_split(folder) or "; name the folder that holds the videos"
        raise UserError(f"No folder of videos at {folder}, which {what}{hint}.")
    files_in = cache(_list_videos)
    clips = [clip for recording in recordings for clip in recording.clips]
    count = Counter(clip.name for clip in clips)
    cuts: dict[str, VideoCut] = {}
    unusable: dict[str, str] = {}
    missing: list[str] = []
    for clip in clips:
        file = files_in(folder / clip.recording).get(clip.name)
        if file is None and clip.name != clip.recording:
            file = files_in(folder).get(clip.name)
            if file is not None and count[clip.name] > 1:
                unusable[clip.id] = f"{file.name} may be that of another recording; move it into {clip.recording}/"
                continue
        if file is not None:
            cuts[clip.id] = VideoCut(file)
        elif recording_file := files_in(folder).get(clip.recording):
            _add_cut(clip, recording_file, cuts, unusable)
        else:
            missing.append(clip.id)
    if not cuts and not unusable:
        raise UserError(
            f"{folder} has no video of the {len(missing)} annotated clips ({summarize_names(missing)}): expected "
            "{clip}.mp4, {recording}/{clip}.mp4 or {recording}.mp4."
        )
    return ClipVideos(cuts, unusable, missing)


def _add_cut(clip: Clip, file: Path, cuts: dict[str, VideoCut], unusable: dict[str, str]) -> None:
    is_whole = clip.start is None and clip.end is None and clip.name == clip.recording
    if not is_whole and (clip.start is None or clip.end is None):
        unusable[clip.id] = f"{file.name} is of the whole recording, and the annotation has no `start` and `end`"
    else:
        cuts[clip.id] = VideoCut(file, clip.start, clip.end)


def _list_videos(folder: Path) -> Mapping[str, Path]:
    """Name without suffix -> file; of several with one name, the one whose suffix comes first in the list."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    files: dict[str, Path] = {}
    for suffix in VIDEO_SUFFIXES:
        for name in names:
            if name.lower().endswith(suffix):
                files.setdefault(name[: -len(suffix)], folder / name)
    return files
