"""Reads the feature files of other tools, clip by clip: `.npy`, `.npz`, safetensors, HDF5, keypoints.

Formats that can contain code (pickle) are refused.
"""

import os
import struct
import tokenize
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from signllava_cli.data.array_size import require_size_in_file
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.hdf5_attributes import read_attribute
from signllava_cli.data.keypoints import (
    LAYOUT_DESCRIPTION,
    Normalization,
    normalize_landmarks,
    read_mediapipe_json,
    read_pose_file,
)
from signllava_cli.data.shard import describe_excess, read_layout
from signllava_cli.errors import first_line, summarize_names

MAX_CACHED_FILES = 16


class HDF5FileCache:
    """Keeps the most recently used HDF5 files open. For one process; the `with` block closes them.

    Args:
        before_file: called with a file before each access to it.
    """

    def __init__(self, before_file: Callable[[Path], None] | None = None) -> None:
        self._before_file = before_file
        self._handles: OrderedDict[Path, h5py.File] = OrderedDict()

    def __enter__(self) -> "HDF5FileCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def open(self, file: Path) -> h5py.File:
        """`file`, open for reading.

        Raises:
            OSError: it is not a valid HDF5 file.
        """
        if self._before_file is not None:
            self._before_file(file)
        if file not in self._handles:
            if len(self._handles) == MAX_CACHED_FILES:
                self._handles.popitem(last=False)[1].close()
            self._handles[file] = h5py.File(file, "r")
        self._handles.move_to_end(file)
        return self._handles[file]


NPZ_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# what the libraries raise on damaged files
_READ_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, RuntimeError, ArithmeticError),
    *(MemoryError, SyntaxError, SafetensorError, tokenize.TokenError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)


def read_array(source: ClipSource, handles: HDF5FileCache) -> np.ndarray:
    """The array of `source`, of any shape and dtype.

    Raises:
        UnreadableClip: the file is damaged, contains Python objects, has several arrays and `source` names none, or
            declares far more numbers than it can hold.
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
        raise UnreadableClip(f"cannot be read: {first_line(error)}") from None


def read_shape(source: ClipSource, handles: HDF5FileCache) -> tuple[int, ...] | None:
    """The shape of the array if a header has it (`.npy`, HDF5), else None; the data is not read."""
    try:
        if source.format == "npy":
            return _npy_shape(source.file)
        if source.format == "hdf5":
            return tuple(_hdf5_dataset(source, handles).shape)
    except (UnreadableClip, *_READ_ERRORS):
        return None  # the error is reported when the clip is read
    return None


def _read_npy(file: Path) -> np.ndarray:
    with open(file, "rb") as stream:  # not numpy.load: it also opens zip files and pickles of this name
        shape, dtype = _read_npy_header(stream)
        require_size_in_file(shape, dtype, os.fstat(stream.fileno()).st_size - stream.tell(), is_compressed=False)
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _npy_shape(file: Path) -> tuple[int, ...]:
    with open(file, "rb") as stream:
        return _read_npy_header(stream)[0]


def _read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The declared shape and dtype of the array in a stream, and move the stream to its numbers."""
    is_first_version = np.lib.format.read_magic(stream) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read_header(stream)
    except MemoryError:  # of Python's parser
        raise ValueError("its header has too many brackets") from None
    if dtype.hasobject:
        raise ValueError("it contains Python objects, which are not read")
    return shape, dtype


def _read_npz(file: Path, key: str) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        member = archive.getinfo(_choose_key(names, key) + ".npy")
        if member.compress_type not in NPZ_COMPRESSION:  # a header of LZMA can ask for 4 GiB of memory
            raise ValueError("it is not compressed as NumPy does it; save it with numpy.savez_compressed")
        require_size_in_file((member.file_size,), np.dtype(np.uint8), file.stat().st_size)
        with archive.open(member) as stream:
            shape, dtype = _read_npy_header(stream)
        require_size_in_file(shape, dtype, member.file_size, is_compressed=False)
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _read_safetensors(file: Path, key: str) -> np.ndarray:
    with safe_open(file, "np") as tensors:
        name = _choose_key(list(tensors.keys()), key)
        if tensors.get_slice(name).get_dtype() != "BF16":
            return tensors.get_tensor(name)
    with safe_open(file, "pt") as tensors:  # numpy has no bfloat16
        return tensors.get_tensor(name).float().numpy()


def _hdf5_dataset(source: ClipSource, handles: HDF5FileCache) -> h5py.Dataset:
    file = handles.open(source.file)
    dataset = file.get(source.key or _choose_key(list(file), ""))
    if not isinstance(dataset, h5py.Dataset):
        raise UnreadableClip(f"{source.key} is not a dataset; name one with --key")
    if error := describe_excess(dataset.id):
        raise UnreadableClip(error)
    is_in_file = h5py.h5i.get_file_id(dataset.id).name == file.id.name
    if dataset.is_virtual or not is_in_file:
        raise UnreadableClip(
            f"{source.key or dataset.name} is stored in another file, which is not read; name that file"
        )
    return dataset


def _choose_key(names: list[str], key: str) -> str:
    if key and key not in names:
        raise UnreadableClip(f"has no array {key}, only {summarize_names(names)}")
    if not key and len(names) != 1:
        raise UnreadableClip(f"has {len(names)} arrays ({summarize_names(names)}); name one with --key")
    return key or names[0]


@dataclass(frozen=True)
class ClipFeatures:
    """The features of one clip.

    `frames`: float16 (T, D). `normalization`: of keypoints, else None. `layout`: the name of what the numbers are, if
    the source has it.
    """

    frames: np.ndarray
    normalization: Normalization | None = None
    layout: str | None = None


def read_features(source: ClipSource, handles: HDF5FileCache) -> ClipFeatures:
    """The features of `source`.

    Raises:
        UnreadableClip: the file is damaged, or its array is not (T >= 1, D) of numbers in the range of float16.
    """
    normalization: Normalization | None
    match source.format:
        case "mediapipe":
            values, normalization = normalize_landmarks(read_mediapipe_json(source.file))
        case "pose":
            values, normalization = normalize_landmarks(read_pose_file(source.file))
        case _:
            frames = to_float16(read_array(source, handles))
            if source.format != "hdf5":
                return ClipFeatures(frames)
            try:
                normalization = _read_normalization(_hdf5_dataset(source, handles))
                return ClipFeatures(frames, normalization, read_layout(handles.open(source.file)))
            except _READ_ERRORS as error:
                raise UnreadableClip(f"cannot be read: {first_line(error)}") from None
    return ClipFeatures(to_float16(values), normalization, LAYOUT_DESCRIPTION)


def _read_normalization(dataset: h5py.Dataset) -> Normalization | None:
    """That of an array of keypoints which `prepare pack` or `prepare extract` wrote."""
    center, scale = read_attribute(dataset, "center"), read_attribute(dataset, "scale")
    is_valid = isinstance(center, np.ndarray) and center.shape == (2,) and isinstance(scale, np.floating)
    return Normalization(center, float(scale)) if is_valid else None


def to_float16(values: np.ndarray) -> np.ndarray:
    """`values` as they are stored.

    Raises:
        UnreadableClip: they are not (T >= 1, D) of numbers in the range of float16.
    """
    if values.dtype.kind not in "fiu":
        raise UnreadableClip(f"dtype {values.dtype}, expected numbers")
    if values.ndim != 2 or not values.shape[1]:
        raise UnreadableClip(f"shape {values.shape}, expected (frames, width)")
    if not len(values):
        raise UnreadableClip("has no frames")
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        frame, column = np.argwhere(~np.isfinite(stored))[0]
        raise UnreadableClip(f"{values[frame, column]} at frame {frame}, not a number in the range of float16")
    return stored
