"""What one HDF5 shard holds: each clip's array, without reading a frame of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from signllava_cli.errors import UserError

STORED_DTYPE = np.dtype("<f2")
LAYOUT = "layout"  # attribute of a shard: the name of what the numbers of its features are


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One clip's array of shape (`frames`, `width`), as it lies in a shard.

    `offset` is the byte of the file where its frames begin, for float16 that lies there row by row without filters;
    else -1: then only the HDF5 library can read it. `error` says why the array cannot be used, or is empty.
    """

    recording: str
    clip: str
    frames: int
    width: int
    dtype: str
    offset: int
    error: str


def read_layout(handle: h5py.File) -> str | None:
    """The name of what the numbers of the features in a shard are, if the shard says so."""
    layout = handle.attrs.get(LAYOUT)
    return layout if isinstance(layout, str) and layout else None


def list_shard(file: Path) -> Iterator[StoredClip]:
    """Every array of the groups of `file`, in the order of their names.

    Raises:
        UserError: the file is no whole HDF5 file.
    """
    try:
        with h5py.File(file, "r") as handle:
            for recording in handle:
                try:
                    group = handle[recording]
                except (KeyError, OSError, RuntimeError):
                    yield StoredClip(recording, "", 0, 0, "", -1, "a broken link in place of a group")
                    continue
                if not isinstance(recording, str):
                    yield StoredClip(recording.decode(errors="replace"), "", 0, 0, "", -1, "a name that is not UTF-8")
                elif isinstance(group, h5py.Group):
                    for clip in group:
                        yield _list_dataset(handle, group, recording, clip)
                else:
                    yield StoredClip(recording, "", 0, 0, "", -1, "a dataset in place of the group of a recording")
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file} is no whole HDF5 file ({error}); copy or pack it again.") from None


def _list_dataset(handle: h5py.File, group: h5py.Group, recording: str, clip: str) -> StoredClip:
    def unusable(why: str) -> StoredClip:
        return StoredClip(recording, clip, 0, 0, "", -1, why)

    if not isinstance(clip, str):  # h5py gives a name that is not UTF-8 as bytes
        return StoredClip(recording, clip.decode(errors="replace"), 0, 0, "", -1, "a name that is not UTF-8")
    try:
        dataset = h5py.h5o.open(group.id, clip.encode())
    except (KeyError, OSError, RuntimeError):
        return unusable("a broken link in place of an array")
    if not isinstance(dataset, h5py.h5d.DatasetID):
        return unusable("a group in place of an array")
    try:
        shape, dtype = dataset.shape, dataset.dtype
    except TypeError:
        return unusable("a type that NumPy does not know in place of numbers")
    if dtype.kind not in "fiu":
        return unusable(f"{dtype} in place of numbers")
    if shape is None or len(shape) != 2 or max(shape) >= 2**31 or (shape[0] and not shape[1]):
        return unusable(f"shape {shape} in place of (frames, width)")
    is_here = h5py.h5i.get_file_id(dataset).name == handle.id.name  # and not behind an external link
    offset = dataset.get_offset() if dtype == STORED_DTYPE and is_here else None
    return StoredClip(recording, clip, shape[0], shape[1], str(dtype), -1 if offset is None else offset, "")
