"""Reads the frames of one stream, clip by clip; frames that `stride` and `max_frames` skip are not read if possible.

Float16 that is stored contiguously, as `prepare pack` writes it, is read directly at its byte offset; anything else
through the HDF5 library.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.index import Index
from signllava_cli.data.open_shards import OpenShard, OpenShards
from signllava_cli.data.shard import STORED_DTYPE
from signllava_cli.errors import UserError, format_count
from signllava_cli.recipe import Stream

MIN_SKIP_BYTES = 16 * 1024  # from one selected frame to the next: below that, reading through is faster


class FeatureStream:
    """The features of one stream of an indexed split.

    `frame_counts`, `widths`, `file_indices`, `offsets`: (clips,), the columns of the index.

    Args:
        limits: the number of frames of each clip at most, (clips,), counted after `stride` and before `max_frames`.

    Raises:
        UserError: the width of a clip is not the recipe's.
    """

    def __init__(self, index: Index, name: str, config: Stream, limits: np.ndarray | None = None) -> None:
        self.index, self.name, self.config, self.limits = index, name, config, limits
        self.files = index.files(name)
        self.frame_counts, self.widths = index.frame_counts(name), index.widths(name)
        self.file_indices, self.offsets = index.file_indices(name), index.offsets(name)
        self._shards = OpenShards(index)
        mismatches = np.flatnonzero((self.frame_counts > 0) & (self.widths != config.width))
        if len(mismatches):
            row = int(mismatches[0])
            more = f" ({format_count(len(mismatches) - 1, 'more clip')} like it)" if len(mismatches) > 1 else ""
            raise UserError(
                f"Stream {name}, clip {index.id(row)} in {self._file(row)}: shape "
                f"({self.frame_counts[row]}, {self.widths[row]}){more}, but the recipe has "
                f"streams.{name}.width={config.width}; set it to the width of the features."
            )

    @property
    def layout(self) -> str | None:
        """The name of what the numbers are: that of the recipe, else that of the shards."""
        return self.config.layout or self.index.layout(self.name)

    def kept_frame_counts(self) -> np.ndarray:
        """The number of frames of each clip that `stride`, the limits and `max_frames` keep, int64 (clips,)."""
        counts = self.frame_counts.astype(np.int64)
        if self.limits is not None:
            counts = np.minimum(counts, self.limits * self.config.stride)
        return count_kept_frames(counts, self.config)

    def read(self, clip: Clip) -> np.ndarray:
        """The frames of `clip`, float16 (T, width): every `stride`-th, and at most `max_frames`, evenly spaced.

        Frames above the clip's limit are not read.

        Raises:
            UserError: the clip has no frames, a value is NaN or infinite, or the file is damaged or has changed.
        """
        count = int(self.frame_counts[clip.row])
        if not count:
            raise UserError(
                f"Stream {self.name} has no frames of clip {clip.id}; pack its features, or set data.missing=skip."
            )
        indices = np.arange(0, count, self.config.stride)
        if self.limits is not None:
            indices = indices[: self.limits[clip.row]]
        if self.config.max_frames is not None and len(indices) > self.config.max_frames:
            indices = subsample(indices, self.config.max_frames)
        direct = bool(self.offsets[clip.row] >= 0)
        read = partial(self._read_direct if direct else self._read_hdf5, clip, indices)
        frames = self._shards.read(self._file(clip.row), direct, read, f"clip {clip.id}")
        if not np.isfinite(frames).all():
            raise UserError(
                f"Stream {self.name}, clip {clip.id} in {self._file(clip.row)} contains NaN, or values beyond "
                "float16; extract its features again, or remove the clip from the annotation."
            )
        return frames

    def reading_order(self, clips: Sequence[Clip]) -> list[int]:
        """The indices of `clips`, sorted by where their frames are stored: file, then offset."""
        rows = [clip.row for clip in clips]
        return sorted(range(len(rows)), key=lambda index: (self.file_indices[rows[index]], self.offsets[rows[index]]))

    def _file(self, row: int) -> Path:
        return self.files[self.file_indices[row]]

    def _read_direct(self, clip: Clip, indices: np.ndarray, shard: OpenShard) -> np.ndarray:
        """The frames `indices` (T,) of contiguous float16, read at the clip's offset."""
        file, offset = shard.descriptor, int(self.offsets[clip.row])
        frame_bytes = self.config.width * STORED_DTYPE.itemsize
        step = 1 if len(indices) == 1 else int(indices[1] - indices[0])
        if step * frame_bytes >= MIN_SKIP_BYTES:
            content = b"".join(os.pread(file, frame_bytes, offset + int(index) * frame_bytes) for index in indices)
            indices = np.arange(len(indices))
        else:
            content = os.pread(file, (int(indices[-1]) + 1) * frame_bytes, offset)
        if len(content) != (int(indices[-1]) + 1) * frame_bytes:
            raise ValueError("the file is truncated")
        frames = np.frombuffer(content, STORED_DTYPE).reshape(-1, self.config.width)
        return frames if len(indices) == len(frames) else frames[indices]

    def _read_hdf5(self, clip: Clip, indices: np.ndarray, shard: OpenShard) -> np.ndarray:
        """The frames `indices` (T,) through HDF5: chunks without any of them are not read."""
        assert shard.hdf5 is not None
        dataset = shard.hdf5[self.index.dataset_path(self.name, clip)]
        frames_per_chunk = dataset.chunks[0] if dataset.chunks else 1
        step = 1 if len(indices) == 1 else int(indices[1] - indices[0])
        if step > frames_per_chunk and (np.diff(indices) == step).all():
            frames = dataset[: int(indices[-1]) + 1 : step]
        elif step > frames_per_chunk:
            frames = dataset[indices]
        else:
            frames = dataset[: int(indices[-1]) + 1][indices]
        with np.errstate(over="ignore"):
            return np.asarray(frames).astype(np.float16, copy=False)


def count_kept_frames(counts: np.ndarray, config: Stream) -> np.ndarray:
    """The number of frames that `stride` and `max_frames` keep of clips of `counts` frames, int64 (clips,)."""
    strided = -(-counts // config.stride)
    return strided if config.max_frames is None else np.minimum(strided, config.max_frames)


def subsample(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` of `frames` (T, ...), evenly spaced from the first to the last."""
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
