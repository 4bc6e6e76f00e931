"""Feature files that somebody dropped on the page: which clips and streams they hold, read without running code."""

import re
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
from signllava_cli.errors import UserError, escape_unprintable, summarize_names

FORMATS = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".pose": "pose"}
MAX_EXPANSION = 16  # what a file may hold, in sizes of the largest upload
MAX_CLIPS = 2000  # in one upload


@dataclass(frozen=True)
class UploadedClip:
    """One clip: its name and its streams, stream -> (T, width)."""

    name: str
    features: dict[str, np.ndarray]


def read_uploads(
    files: Sequence[tuple[str, Path]],
    streams: Mapping[str, int],
    limit: int,
    layouts: Mapping[str, str] | None = None,
) -> list[UploadedClip]:
    """The clips in `files`, in the order of their names.

    An HDF5 file holds one stream, a dataset for each clip; `.npz` one clip, an array for each stream; `.npy` and
    `.pose` one stream of one clip. Streams are known by the name of the file (or array), such as `01.mae.npy`, or by
    their width; what is left of the name says which files are of one clip.

    Args:
        files: (the name that the file had, where it lies now).
        streams: those of the model, with their widths.
        limit: bytes that may be uploaded; files that would unpack to far more are refused.
        layouts: those that the model was trained on, where known.

    Raises:
        UserError: a file cannot be read, is of no stream or of another layout, or gives a clip a stream twice.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, file in files:
        shown = escape_unprintable(name)
        try:
            arrays = _arrays(name, file, limit)
            for clip, label, features in arrays:
                stream, array = _stream_of(label, features.frames, streams), features.frames
                _require_layout(features.layout, (layouts or {}).get(stream))
                key = clip if clip is not None else _without(Path(name).stem, stream)
                if stream in found.setdefault(key, {}):
                    raise UnreadableClip(f"clip {escape_unprintable(key) or '-'} has stream {stream} twice")
                found[key][stream] = array
        except UnreadableClip as error:
            raise UserError(f"{shown}: {error}.") from None
    if not found:
        raise UserError("The files hold no clip.")
    return [UploadedClip(key or "clip", found[key]) for key in sorted(found, key=natural_sort_key)]


def _arrays(name: str, file: Path, limit: int) -> list[tuple[str | None, str, ClipFeatures]]:
    """(clip, a name that may tell the stream, features) of every array in `file`; no clip: the file's name says."""
    kind = FORMATS.get(Path(name).suffix.lower())
    stem = Path(name).stem
    with HDF5FileCache() as handles:
        match kind:
            case "npy":
                return [(None, stem, read_features(ClipSource(file, kind), handles))]
            case "npz":
                keys = _npz_keys(file, limit)
                return [(stem, f"{stem}.{key}", read_features(ClipSource(file, kind, key), handles)) for key in keys]
            case "hdf5":
                keys = _hdf5_keys(file, limit)
                return [(key, stem, read_features(ClipSource(file, kind, key), handles)) for key in keys]
            case "pose":
                require_pose_format()
                return [(None, f"{stem}.pose", read_features(ClipSource(file, kind), handles))]
    raise UnreadableClip(f"is none of {', '.join(FORMATS)}")


def _require_layout(layout: str | None, trained: str | None) -> None:
    if layout and trained and layout != trained:
        raise UnreadableClip(f"layout {layout}, but the model was trained on layout {trained}")


def _npz_keys(file: Path, limit: int) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UnreadableClip(f"cannot be read: {error}") from None
    _require_size(sum(member.file_size for member in members), len(members), limit)
    return [member.filename.removesuffix(".npy") for member in members if member.filename.endswith(".npy")]


def _hdf5_keys(file: Path, limit: int) -> list[str]:
    """The paths of all datasets that lie in the file itself: links that lead out of it are not followed."""
    found: dict[str, int] = {}
    outside: list[str] = []

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                outside.append(name)
            found[name] = int(item.nbytes)

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(look)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UnreadableClip(f"cannot be read as HDF5: {error}") from None
    if outside:
        raise UnreadableClip(f"refers to other files ({summarize_names(outside)}), which are not read")
    _require_size(sum(found.values()), len(found), limit)
    return list(found)


def _require_size(size: int, count: int, limit: int) -> None:
    if size > MAX_EXPANSION * limit or count > MAX_CLIPS:
        raise UnreadableClip(f"unpacks to {count} arrays of {size:,} bytes in all; that is more than is read")


def _stream_of(label: str, array: np.ndarray, streams: Mapping[str, int]) -> str:
    named = [name for name in streams if name.lower() in re.split(r"[^0-9A-Za-z_]+", label.lower())]
    fitting = [name for name, width in streams.items() if width == array.shape[1]]
    chosen = [name for name in named if name in fitting] or (fitting if not named else [])
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{name} ({width})" for name, width in streams.items())
    if chosen:
        raise UnreadableClip(
            f"has width {array.shape[1]}, that of {' and '.join(chosen)}: name the stream in its name"
        )
    raise UnreadableClip(f"has width {array.shape[1]}; the model takes {known}")


def _without(stem: str, stream: str) -> str:
    """The file's name less that of its stream."""
    words = rf"(^|[^0-9A-Za-z]){re.escape(stream)}(?=$|[^0-9A-Za-z])"
    return re.sub(words, "", stem, flags=re.IGNORECASE).strip("._- ")
