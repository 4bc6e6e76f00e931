"""The frames of one stream, read clip by clip: only those that are wanted, wherever the file allows it.

Float16 that lies row by row in the file, as `prepare pack` writes it, is read from its byte on; anything else through
the HDF5 library. Files are opened on first use in each process: processes that share an opened one may share its
place in the file.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.index import Index
from signllava_cli.data.shard import STORED_DTYPE
from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream

MAX_OPEN_FILES = 64  # of one stream and process: a corpus may have more shards than a process may open files
MIN_SKIP_BYTES = 16 * 1024  # bytes from one wanted frame to the next: reading on is cheaper below that


class FeatureStream:
    """The features of one stream of an indexed split.

    Raises:
        UserError: a clip's width is not the recipe's.
    """

    def __init__(self, index: Index, name: str, config: Stream) -> None:
        self.index, self.name, self.config = index, name, config
        self.files = index.files(name)
        self.frame_counts, self.widths = index.frames(name), index.widths(name)
        self.file_numbers, self.offsets = index.file_numbers(name), index.offsets(name)
        self._handles: OrderedDict[tuple[Path, bool], h5py.File | int] = OrderedDict()
        self._process = os.getpid()
        wrong = np.flatnonzero((self.frame_counts > 0) & (self.widths != config.width))
        if len(wrong):
            row = int(wrong[0])
            more = f" ({len(wrong) - 1} more clips like it)" if len(wrong) > 1 else ""
            raise UserError(
                f"Stream {name}, clip {index.id(row)} in {self._file(row)}: shape "
                f"({self.frame_counts[row]}, {self.widths[row]}){more}, but the recipe says "
                f"streams.{name}.width={config.width}."
            )

    @property
    def layout(self) -> str | None:
        """The name of what the numbers are: the recipe's, else what the shards say."""
        return self.config.layout or self.index.layout(self.name)

    def kept_frames(self) -> np.ndarray:
        """How many frames of each clip are read under `stride` and `max_frames`, int64 (clips,)."""
        return count_kept_frames(self.frame_counts.astype(np.int64), self.config)

    def read(self, clip: Clip) -> np.ndarray:
        """The frames of `clip`, float16 of shape (T, width), every `stride`-th and at most `max_frames`.

        Raises:
            UserError: the clip has no frames, or one that is NaN or infinite, or its file is damaged.
        """
        count = int(self.frame_counts[clip.row])
        if not count:
            raise UserError(f"Stream {self.name} has no frames of clip {clip.id}.")
        wanted = np.arange(0, count, self.config.stride)
        if self.config.max_frames is not None and len(wanted) > self.config.max_frames:
            wanted = subsample(wanted, self.config.max_frames)
        try:
            frames = self._read_bytes(clip, wanted) if self.offsets[clip.row] >= 0 else self._read_hdf5(clip, wanted)
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise UserError(f"Too many files are open at {self._file(clip.row)}; raise `ulimit -n`.") from None
            raise UserError(f"{self._file(clip.row)} is damaged at clip {clip.id}: {error}.") from None
        if not np.isfinite(frames).all():
            raise UserError(
                f"Stream {self.name}, clip {clip.id} in {self._file(clip.row)} holds NaN, or values that float16 "
                "cannot; extract its features again or take the clip out of the annotation."
            )
        return frames

    def reading_order(self, clips: Sequence[Clip]) -> list[int]:
        """The places in `clips` in the order in which their frames lie on disk."""
        return sorted(
            range(len(clips)), key=lambda at: (self.file_numbers[clips[at].row], self.offsets[clips[at].row])
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handles": OrderedDict()}  # a worker that was not forked opens its own, too

    def _file(self, row: int) -> Path:
        return self.files[self.file_numbers[row]]

    def _read_bytes(self, clip: Clip, wanted: np.ndarray) -> np.ndarray:
        """The `wanted` frames of float16 that lies row by row from its offset on."""
        file, offset = self._opened(self._file(clip.row), direct=True), int(self.offsets[clip.row])
        size = self.config.width * STORED_DTYPE.itemsize
        step = 1 if len(wanted) == 1 else int(wanted[1] - wanted[0])
        if step * size >= MIN_SKIP_BYTES:
            content = b"".join(os.pread(file, size, offset + int(frame) * size) for frame in wanted)
            wanted = np.arange(len(wanted))
        else:
            content = os.pread(file, (int(wanted[-1]) + 1) * size, offset)
        if len(content) != (int(wanted[-1]) + 1) * size:
            raise ValueError("it ends too early")
        frames = np.frombuffer(content, STORED_DTYPE).reshape(-1, self.config.width)
        return frames if len(wanted) == len(frames) else frames[wanted]

    def _read_hdf5(self, clip: Clip, wanted: np.ndarray) -> np.ndarray:
        """The `wanted` frames through HDF5: chunks that hold none of them are not read."""
        dataset = self._opened(self._file(clip.row), direct=False)[self.index.dataset(self.name, clip)]
        rows_at_once = dataset.chunks[0] if dataset.chunks else 1
        step = 1 if len(wanted) == 1 else int(wanted[1] - wanted[0])
        if step > rows_at_once and (np.diff(wanted) == step).all():
            frames = dataset[: int(wanted[-1]) + 1 : step]
        elif step > rows_at_once:
            frames = dataset[wanted]
        else:
            frames = dataset[: int(wanted[-1]) + 1][wanted]
        with np.errstate(over="ignore"):
            return np.asarray(frames).astype(np.float16, copy=False)

    def _opened(self, file: Path, direct: bool) -> Any:
        if self._process != os.getpid():
            self._handles, self._process = OrderedDict(), os.getpid()
        key = file, direct
        if key not in self._handles:
            self.index.require_unchanged(file)
            self._handles[key] = os.open(file, os.O_RDONLY) if direct else h5py.File(file, "r")
            if len(self._handles) > MAX_OPEN_FILES:
                _, oldest = self._handles.popitem(last=False)
                os.close(oldest) if isinstance(oldest, int) else oldest.close()
        self._handles.move_to_end(key)
        return self._handles[key]


def count_kept_frames(counts: np.ndarray, config: Stream) -> np.ndarray:
    """What `stride` and `max_frames` leave of clips of `counts` frames."""
    strided = -(-counts // config.stride)
    return strided if config.max_frames is None else np.minimum(strided, config.max_frames)


def subsample(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` of the frames (T, D), evenly spaced from the first to the last."""
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
