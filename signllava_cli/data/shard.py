"""Lists the arrays of one HDF5 shard, without reading their frames."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from signllava_cli.data.array_size import require_size_in_file
from signllava_cli.data.hdf5_attributes import read_attribute
from signllava_cli.errors import UserError, first_line

STORED_DTYPE = np.dtype("<f2")
TRANSIENT_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO)  # disk or network failed; it may pass
# what h5py raises on damaged files
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)
LAYOUT = "layout"  # attribute of a shard file: the name of what the numbers of its features are


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One clip's array of shape (`frames`, `width`) in a shard.

    `offset`: the byte offset of the frames in the file, for contiguous float16 without filters; else -1, and only the
    HDF5 library can read it. `error`: why the array cannot be used, or empty.
    """

    recording: str
    clip: str
    frames: int
    width: int
    dtype: str
    offset: int
    error: str


def read_layout(handle: h5py.File) -> str | None:
    """The layout of a shard, the name of what the numbers of its features are, or None.

    Raises:
        ValueError: it is damaged.
    """
    layout = read_attribute(handle, LAYOUT)
    return layout if isinstance(layout, str) and layout else None


def transient_error(error: Exception) -> int | None:
    """The error number if disk or network failed, which may pass. Some errors of h5py have it in the message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in TRANSIENT_ERRORS else None
    return next((number for number in TRANSIENT_ERRORS if f"errno = {number}," in str(error)), None)


def list_shard(file: Path) -> Iterator[StoredClip]:
    """Every array in the groups of `file`, sorted by name.

    Raises:
        UserError: the file is not a valid HDF5 file, or disk or network failed.
    """
    try:
        with h5py.File(file, "r") as handle:
            for recording in handle:
                try:
                    group = handle[recording]
                except HDF5_ERRORS as error:
                    if transient_error(error):
                        raise
                    yield StoredClip(recording, "", 0, 0, "", -1, "a broken link, expected a group")
                    continue
                if not isinstance(recording, str):
                    yield StoredClip(recording.decode(errors="replace"), "", 0, 0, "", -1, "a name that is not UTF-8")
                elif isinstance(group, h5py.Group):
                    for clip in group:
                        yield _list_dataset(handle, group, recording, clip)
                else:
                    yield StoredClip(recording, "", 0, 0, "", -1, "a dataset, expected the group of a recording")
    except HDF5_ERRORS as error:
        if number := transient_error(error):
            raise UserError(
                f"{file} cannot be read ({os.strerror(number)}); check the disk or the network, and run the command "
                "again."
            ) from None
        raise UserError(f"{file} is not a valid HDF5 file ({first_line(error)}); copy it or pack it again.") from None


def _list_dataset(handle: h5py.File, group: h5py.Group, recording: str, clip: str) -> StoredClip:
    def invalid(error: str) -> StoredClip:
        return StoredClip(recording, clip, 0, 0, "", -1, error)

    if not isinstance(clip, str):  # h5py gives a name that is not UTF-8 as bytes
        return StoredClip(recording, clip.decode(errors="replace"), 0, 0, "", -1, "a name that is not UTF-8")
    try:
        dataset = h5py.h5o.open(group.id, clip.encode())
    except HDF5_ERRORS as error:
        if transient_error(error):
            raise
        return invalid("a broken link, expected an array")
    if not isinstance(dataset, h5py.h5d.DatasetID):
        return invalid("a group, expected an array")
    try:
        shape, dtype = dataset.shape, dataset.dtype
    except HDF5_ERRORS:
        return invalid("a type that NumPy does not support, expected numbers")
    if dtype.kind not in "fiu":
        return invalid(f"dtype {dtype}, expected numbers")
    if shape is None or len(shape) != 2 or max(shape) >= 2**31 or (shape[0] and not shape[1]):
        return invalid(f"shape {shape}, expected (frames, width)")
    if excess := describe_excess(dataset):
        return invalid(f"damaged: {excess}")
    is_in_file = h5py.h5i.get_file_id(dataset).name == handle.id.name  # and not behind an external link
    offset = dataset.get_offset() if dtype == STORED_DTYPE and is_in_file else None
    return StoredClip(recording, clip, shape[0], shape[1], str(dtype), -1 if offset is None else offset, "")


def describe_excess(dataset: h5py.h5d.DatasetID) -> str | None:
    """Why an array is not read: its file cannot hold the numbers that it declares, or another file holds them."""
    try:
        properties = dataset.get_create_plist()
        if properties.get_external_count():
            return "its numbers are in another file, which is not read"
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL:
            return None  # the arrays of which it consists are in other HDF5 files
        file_size = h5py.h5i.get_file_id(dataset).get_filesize()
        is_packed = layout == h5py.h5d.CHUNKED
        if is_packed:
            require_size_in_file(properties.get_chunk(), dataset.dtype, file_size)
        shape, offset = dataset.shape or (), dataset.get_offset()
        require_size_in_file(
            shape, dataset.dtype, file_size - (offset or 0), is_packed or dataset.get_storage_size() == 0
        )
    except HDF5_ERRORS as error:
        return first_line(error)
    return None
