"""Keeps the shards of a stream open for reading, notices shards that change meanwhile, repeats failed reads.

An open shard that is removed or replaced by another file can still be read: the open file is the old one. A shard
that is written in place cannot: its bytes may be frames of other clips. So after each read, size and modification
time of the open file are compared with those in the index, which costs one system call.
"""

import contextlib
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signllava_cli.console import warning
from signllava_cli.data.index import Index
from signllava_cli.data.shard import transient_error
from signllava_cli.errors import UserError, first_line

MAX_OPEN_FILES = 64  # per stream and process: a corpus may have more shards than a process may open files
RETRY_SECONDS = (1.0, 2.0, 4.0)  # the waits before a read that the disk or network failed is repeated


@dataclass(frozen=True)
class OpenShard:
    """A shard that is open: its file descriptor, and its h5py.File unless it is read directly."""

    descriptor: int
    hdf5: h5py.File | None = None

    @classmethod
    def open(cls, shard: Path, direct: bool) -> "OpenShard":
        """`shard`, open for direct reads or through the HDF5 library."""
        if direct:
            return cls(os.open(shard, os.O_RDONLY))
        handle = h5py.File(shard, "r")
        return cls(handle.id.get_vfd_handle(), handle)

    def close(self) -> None:
        """Close the file."""
        if self.hdf5 is None:
            os.close(self.descriptor)
        else:
            self.hdf5.close()


class OpenShards:
    """The open shards of one stream in one process; each process that uses this object opens the files itself.

    `num_repeated`: the failed reads that this process has repeated.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._shards: OrderedDict[tuple[Path, bool], OpenShard] = OrderedDict()
        self._process = os.getpid()
        self.num_repeated = 0

    def read(self, shard: Path, direct: bool, read: Callable[[OpenShard], np.ndarray], what: str) -> np.ndarray:
        """The result of `read` with the open shard; it is repeated if the disk or the network failed.

        Args:
            what: what is read, for messages.

        Raises:
            UserError: the shard has changed since it was indexed, was removed before it was opened, is damaged, or
                cannot be read; or too many files are open.
        """
        for seconds in (*RETRY_SECONDS, None):
            try:
                open_shard = self._open(shard, direct)
                frames = read(open_shard)
                self._index.require_unchanged(shard, open_shard.descriptor)
                return frames
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                self._close(shard, direct)
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                    raise UserError(f"Too many files are open at {shard}; raise `ulimit -n`.") from None
                number = transient_error(error)
                if number is None:
                    raise UserError(
                        f"{shard} is damaged at {what}: {first_line(error)}; copy it or pack it again."
                    ) from None
                if seconds is None:
                    raise UserError(
                        f"{shard} cannot be read at {what} ({os.strerror(number)}, {len(RETRY_SECONDS) + 1} times); "
                        "check the disk or the network, and run the command again."
                    ) from None
                self.num_repeated += 1
                warning(
                    f"{shard}: reading {what} failed ({os.strerror(number)}); it is repeated after {seconds:g} s "
                    f"(repeated read {self.num_repeated} of this process)",
                    all_ranks=True,
                )
            time.sleep(seconds)
        raise AssertionError("the last attempt returns or raises")

    def _open(self, shard: Path, direct: bool) -> OpenShard:
        """`shard`, opened unless it is open; then the least recently used one is closed if too many are open."""
        if self._process != os.getpid():
            self._shards, self._process, self.num_repeated = OrderedDict(), os.getpid(), 0
        key = shard, direct
        if key not in self._shards:
            self._index.require_unchanged(shard)  # before HDF5 reads it: it would call another file damaged
            self._shards[key] = OpenShard.open(shard, direct)
            if len(self._shards) > MAX_OPEN_FILES:
                self._shards.popitem(last=False)[1].close()
        self._shards.move_to_end(key)
        return self._shards[key]

    def _close(self, shard: Path, direct: bool) -> None:
        """Close the shard of a failed read, after a check that it is unchanged; another read opens it anew.

        On a network file system a handle is stale when the file was replaced on the server.
        """
        open_shard = self._shards.pop((shard, direct), None)
        if open_shard is None:
            return
        try:
            with contextlib.suppress(OSError):  # of a stale handle
                self._index.require_unchanged(shard, open_shard.descriptor)
        finally:
            open_shard.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shards": OrderedDict()}  # a spawned worker opens its own files
