"""The feature files of other tools, read clip by clip: `.npy`, `.npz`, safetensors, HDF5, keypoints. Data is read,
never code."""

import tokenize
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.keypoints import (
    LAYOUT_DESCRIPTION,
    Normalization,
    normalize_landmarks,
    read_mediapipe_json,
    read_pose_file,
)
from signllava_cli.data.shard import read_layout
from signllava_cli.errors import summarize_names

MAX_CACHED_FILES = 16


class HDF5FileCache:
    """The HDF5 files that were used last. To be used in one process, and closed by its `with` block."""

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, h5py.File] = OrderedDict()

    def __enter__(self) -> "HDF5FileCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def open(self, file: Path) -> h5py.File:
        """`file`, opened to read.

        Raises:
            OSError: it is no whole HDF5 file.
        """
        if file not in self._handles:
            if len(self._handles) == MAX_CACHED_FILES:
                self._handles.popitem(last=False)[1].close()
            self._handles[file] = h5py.File(file, "r")
        self._handles.move_to_end(file)
        return self._handles[file]


# what the libraries raise on damaged files
_READ_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError),
    *(SafetensorError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_array(source: ClipSource, handles: HDF5FileCache) -> np.ndarray:
    """The array of any shape and type that `source` names.

    Raises:
        Unreadable: the file is damaged, holds Python objects, or several arrays with none named.
    """
    try:
        match source.format:
            case "npy":
                return _read_npy(source.file)
            case "npz":
                return _read_npz(source.file, source.key)
            case "safetensors":
                return _read_safetensors(source.file, source.key)
            case _:
                return np.asarray(_hdf5_dataset(source, handles)[()])
    except _READ_ERRORS as error:
        raise UnreadableClip(f"cannot be read: {str(error) or type(error).__name__}") from None


def read_shape(source: ClipSource, handles: HDF5FileCache) -> tuple[int, ...] | None:
    """The array's shape where a header tells it without reading on (`.npy`, HDF5); else None."""
    try:
        if source.format == "npy":
            return _npy_shape(source.file)
        if source.format == "hdf5":
            return tuple(_hdf5_dataset(source, handles).shape)
    except (UnreadableClip, *_READ_ERRORS):
        return None  # will be said when the clip is read
    return None


def _read_npy(file: Path) -> np.ndarray:
    with open(file, "rb") as opened:  # not numpy.load: it takes a zip or a pickle for what the name does not say
        return np.lib.format.read_array(opened, allow_pickle=False)


def _npy_shape(file: Path) -> tuple[int, ...]:
    with open(file, "rb") as opened:
        version = np.lib.format.read_magic(opened)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(opened)[0]
        return np.lib.format.read_array_header_2_0(opened)[0]


def _read_npz(file: Path, key: str) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        with archive.open(_choose_key(names, key) + ".npy") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)


def _read_safetensors(file: Path, key: str) -> np.ndarray:
    with safe_open(file, "np") as opened:
        name = _choose_key(list(opened.keys()), key)
        if opened.get_slice(name).get_dtype() != "BF16":
            return opened.get_tensor(name)
    with safe_open(file, "pt") as opened:  # numpy has no bfloat16
        return opened.get_tensor(name).float().numpy()


def _hdf5_dataset(source: ClipSource, handles: HDF5FileCache) -> h5py.Dataset:
    opened = handles.open(source.file)
    found = opened.get(source.key or _choose_key(list(opened), ""))
    if not isinstance(found, h5py.Dataset):
        raise UnreadableClip(f"{source.key} is no dataset; name one with --key")
    return found


def _choose_key(names: list[str], key: str) -> str:
    if key and key not in names:
        raise UnreadableClip(f"holds no array {key}, but {summarize_names(names)}")
    if not key and len(names) != 1:
        raise UnreadableClip(f"holds {len(names)} arrays ({summarize_names(names)}); name one with --key")
    return key or names[0]


@dataclass(frozen=True)
class ClipFeatures:
    """`frames`, float16 of shape (T, D); `normalization` for keypoints, else None.

    `layout` names what the numbers are, where the source tells it.
    """

    frames: np.ndarray
    normalization: Normalization | None = None
    layout: str | None = None


def read_features(source: ClipSource, handles: HDF5FileCache) -> ClipFeatures:
    """The features that `source` holds.

    Raises:
        Unreadable: the file is damaged, or its array is not (T >= 1, D) of numbers that float16 can hold.
    """
    match source.format:
        case "mediapipe":
            values, normalization = normalize_landmarks(read_mediapipe_json(source.file))
        case "pose":
            values, normalization = normalize_landmarks(read_pose_file(source.file))
        case _:
            frames = _to_float16(read_array(source, handles))
            layout = read_layout(handles.open(source.file)) if source.format == "hdf5" else None
            return ClipFeatures(frames, layout=layout)
    return ClipFeatures(_to_float16(values), normalization, LAYOUT_DESCRIPTION)


def _to_float16(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise UnreadableClip(f"{values.dtype} in place of numbers")
    if values.ndim != 2 or not values.shape[1]:
        raise UnreadableClip(f"shape {values.shape} in place of (frames, width)")
    if not len(values):
        raise UnreadableClip("has no frames")
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        frame, column = np.argwhere(~np.isfinite(stored))[0]
        raise UnreadableClip(f"{values[frame, column]} at frame {frame}, which is no number that float16 can hold")
    return stored
