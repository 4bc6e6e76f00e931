"""Lists the arrays of one HDF5 shard, without reading their frames."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from signllava_cli.errors import UserError

STORED_DTYPE = np.dtype("<f2")
TRANSIENT_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO)  # disk or network failed; it may pass
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
    """The layout of a shard, the name of what the numbers of its features are, or None."""
    layout = handle.attrs.get(LAYOUT)
    return layout if isinstance(layout, str) and layout else None


def transient_error(error: Exception) -> int | None:
    """The error number if disk or network failed, which may pass. Some errors of h5py have it in the message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in TRANSIENT_ERRORS else None
    return next((number for number in TRANSIENT_ERRORS if f"errno = {number}," in str(error)), None)


def join_lines(error: Exception) -> str:
    """The message of an error on one line; those of HDF5 have several."""
    return " ".join(str(error).split())


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
                except (KeyError, OSError, RuntimeError) as error:
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
    except (KeyError, OSError, RuntimeError) as error:
        if number := transient_error(error):
            raise UserError(
                f"{file} cannot be read ({os.strerror(number)}); check the disk or the network, and run the command "
                "again."
            ) from None
        raise UserError(f"{file} is not a valid HDF5 file ({join_lines(error)}); copy it or pack it again.") from None


def _list_dataset(handle: h5py.File, group: h5py.Group, recording: str, clip: str) -> StoredClip:
    def invalid(error: str) -> StoredClip:
        return StoredClip(recording, clip, 0, 0, "", -1, error)

    if not isinstance(clip, str):  # h5py gives a name that is not UTF-8 as bytes
        return StoredClip(recording, clip.decode(errors="replace"), 0, 0, "", -1, "a name that is not UTF-8")
    try:
        dataset = h5py.h5o.open(group.id, clip.encode())
    except (KeyError, OSError, RuntimeError) as error:
        if transient_error(error):
            raise
        return invalid("a broken link, expected an array")
    if not isinstance(dataset, h5py.h5d.DatasetID):
        return invalid("a group, expected an array")
    try:
        shape, dtype = dataset.shape, dataset.dtype
    except TypeError:
        return invalid("a type that NumPy does not support, expected numbers")
    if dtype.kind not in "fiu":
        return invalid(f"dtype {dtype}, expected numbers")
    if shape is None or len(shape) != 2 or max(shape) >= 2**31 or (shape[0] and not shape[1]):
        return invalid(f"shape {shape}, expected (frames, width)")
    is_in_file = h5py.h5i.get_file_id(dataset).name == handle.id.name  # and not behind an external link
    offset = dataset.get_offset() if dtype == STORED_DTYPE and is_in_file else None
    return StoredClip(recording, clip, shape[0], shape[1], str(dtype), -1 if offset is None else offset, "")
