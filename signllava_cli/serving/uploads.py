"""Reads uploaded feature files: their clips and streams. Data is read, never code."""

import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from signllava_cli.data.annotations import natural_sort_key
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, HDF5FileCache, read_features
from signllava_cli.data.keypoints import require_pose_format
from signllava_cli.data.shard import HDF5_ERRORS
from signllava_cli.errors import UserError, escape_unprintable, first_line, summarize_names
from signllava_cli.processes import BeforeFile, call_in_child

FORMATS = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".pose": "pose"}
MAX_EXPANSION = 16  # unpacked size of a file, in multiples of the upload limit
MAX_CLIPS = 2000  # in one file


@dataclass(frozen=True)
class UploadedClip:
    """One clip: its name and its features, stream -> (T, width)."""

    name: str
    features: dict[str, np.ndarray]


def read_uploads(
    files: Sequence[tuple[str, Path]],
    streams: Mapping[str, int],
    limit: int,
    layouts: Mapping[str, str] | None = None,
) -> list[UploadedClip]:
    """The clips in `files`, in the order of their names; read in a process of its own, which HDF5 may crash.

    An HDF5 file holds one stream, with a dataset for each clip; `.npz` one clip, with an array for each stream;
    `.npy` and `.pose` one stream of one clip. A stream is recognized by the name of the file (or array), such as
    `01.mae.npy`, or by its width. The rest of the name is the clip's name, by which the files of a clip are joined.

    Args:
        files: (name of the uploaded file, path of its content).
        streams: those of the model, with their widths.
        limit: bytes of an upload; files that would unpack to far more are rejected.
        layouts: those that the model was trained on, where known.

    Raises:
        UserError: a file cannot be read, has no known stream or another layout, or repeats a stream of a clip.
    """
    return call_in_child(_read_uploads, files, streams, limit, layouts)


def _read_uploads(
    before_file: BeforeFile,
    files: Sequence[tuple[str, Path]],
    streams: Mapping[str, int],
    limit: int,
    layouts: Mapping[str, str] | None,
) -> list[UploadedClip]:
    clips: dict[str, dict[str, np.ndarray]] = {}
    for name, file in files:
        before_file(file, name)
        try:
            for clip, label, features in _read_arrays(name, file, limit):
                stream = _recognize_stream(label, features.frames, streams)
                _require_layout(features.layout, (layouts or {}).get(stream))
                key = clip if clip is not None else _remove_stream_name(Path(name).stem, stream)
                if stream in clips.setdefault(key, {}):
                    raise UnreadableClip(f"clip {escape_unprintable(key) or '-'} has stream {stream} twice")
                clips[key][stream] = features.frames
        except UnreadableClip as error:
            raise UserError(f"{escape_unprintable(name)}: {error}.") from None
    if not clips:
        raise UserError("The files have no clip.")
    return [UploadedClip(key or "clip", clips[key]) for key in sorted(clips, key=natural_sort_key)]


def _read_arrays(name: str, file: Path, limit: int) -> list[tuple[str | None, str, ClipFeatures]]:
    """(clip, label, features) of every array in `file`.

    `clip`: None if the clip's name is part of the file's name. `label`: the text that may contain the stream's name.
    """
    file_format = FORMATS.get(Path(name).suffix.lower())
    stem = Path(name).stem
    with HDF5FileCache() as cache:
        match file_format:
            case "npy":
                return [(None, stem, read_features(ClipSource(file, file_format), cache))]
            case "npz":
                return [
                    (stem, f"{stem}.{key}", read_features(ClipSource(file, file_format, key), cache))
                    for key in _list_npz_keys(file, limit)
                ]
            case "hdf5":
                return [
                    (key, stem, read_features(ClipSource(file, file_format, key), cache))
                    for key in _list_hdf5_keys(file, limit)
                ]
            case "pose":
                require_pose_format()
                return [(None, f"{stem}.pose", read_features(ClipSource(file, file_format), cache))]
    raise UnreadableClip(f"not a file of a known format ({', '.join(FORMATS)})")


def _require_layout(layout: str | None, trained_layout: str | None) -> None:
    if layout and trained_layout and layout != trained_layout:
        raise UnreadableClip(f"layout {layout}, but the model was trained on layout {trained_layout}")


def _list_npz_keys(file: Path, limit: int) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise UnreadableClip(f"cannot be read: {first_line(error)}") from None
    _require_size(sum(member.file_size for member in members), len(members), limit)
    return [member.filename.removesuffix(".npy") for member in members if member.filename.endswith(".npy")]


def _list_hdf5_keys(file: Path, limit: int) -> list[str]:
    """The paths of all datasets stored in the file. Links to other files are not followed."""
    sizes: dict[str, int] = {}
    external: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                external.append(name)
            sizes[name] = int(item.nbytes)

    try:
        with h5py.File(file, "r") as hdf5:
            hdf5.visititems(visit)
    except HDF5_ERRORS as error:
        raise UnreadableClip(f"cannot be read as HDF5: {first_line(error)}") from None
    if external:
        raise UnreadableClip(f"refers to other files ({summarize_names(external)}), which are not read")
    _require_size(sum(sizes.values()), len(sizes), limit)
    return list(sizes)


def _require_size(size: int, count: int, limit: int) -> None:
    if size > MAX_EXPANSION * limit or count > MAX_CLIPS:
        raise UnreadableClip(f"unpacks to {count} arrays of {size:,} bytes in total, which is above the limit")


def _recognize_stream(label: str, frames: np.ndarray, streams: Mapping[str, int]) -> str:
    """The stream whose name is a word of `label`, or else the only one with the width of `frames` (T, width)."""
    named = [name for name in streams if name.lower() in re.split(r"[^0-9A-Za-z_]+", label.lower())]
    same_width = [name for name, width in streams.items() if width == frames.shape[1]]
    candidates = [name for name in named if name in same_width] or (same_width if not named else [])
    if len(candidates) == 1:
        return candidates[0]
    known = ", ".join(f"{name} ({width})" for name, width in streams.items())
    if candidates:
        raise UnreadableClip(
            f"has width {frames.shape[1]}, that of {' and '.join(candidates)}; add the stream to the file's name"
        )
    raise UnreadableClip(f"has width {frames.shape[1]}; the model takes {known}")


def _remove_stream_name(stem: str, stream: str) -> str:
    """The file's name without that of its stream."""
    pattern = rf"(^|[^0-9A-Za-z]){re.escape(stream)}(?=$|[^0-9A-Za-z])"
    return re.sub(pattern, "", stem, flags=re.IGNORECASE).strip("._- ")
