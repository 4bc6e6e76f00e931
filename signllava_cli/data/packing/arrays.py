"""Numeric arrays out of `.npy`, `.npz`, safetensors and HDF5 files: data is read, never code."""

import tokenize
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from signllava_cli.data.packing.clip_file import ClipFile, Unreadable
from signllava_cli.data.packing.open_hdf5 import OpenHdf5
from signllava_cli.errors import first_names

# what the libraries raise on damaged files
_READ_FAULTS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError),
    *(SafetensorError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_array(source: ClipFile, handles: OpenHdf5) -> np.ndarray:
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
    except _READ_FAULTS as fault:
        raise Unreadable(f"cannot be read: {str(fault) or type(fault).__name__}") from None


def shape_in_header(source: ClipFile, handles: OpenHdf5) -> tuple[int, ...] | None:
    """The array's shape where a header tells it without reading on (`.npy`, HDF5); else None."""
    try:
        if source.format == "npy":
            return _npy_shape(source.file)
        if source.format == "hdf5":
            return tuple(_hdf5_dataset(source, handles).shape)
    except (Unreadable, *_READ_FAULTS):
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
        with archive.open(_chosen(names, key) + ".npy") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)


def _read_safetensors(file: Path, key: str) -> np.ndarray:
    with safe_open(file, "np") as opened:
        name = _chosen(list(opened.keys()), key)
        if opened.get_slice(name).get_dtype() != "BF16":
            return opened.get_tensor(name)
    with safe_open(file, "pt") as opened:  # numpy has no bfloat16
        return opened.get_tensor(name).float().numpy()


def _hdf5_dataset(source: ClipFile, handles: OpenHdf5) -> h5py.Dataset:
    opened = handles.open(source.file)
    found = opened.get(source.key or _chosen(list(opened), ""))
    if not isinstance(found, h5py.Dataset):
        raise Unreadable(f"{source.key} is no dataset; name one with --key")
    return found


def _chosen(names: list[str], key: str) -> str:
    if key and key not in names:
        raise Unreadable(f"holds no array {key}, but {first_names(names)}")
    if not key and len(names) != 1:
        raise Unreadable(f"holds {len(names)} arrays ({first_names(names)}); name one with --key")
    return key or names[0]
