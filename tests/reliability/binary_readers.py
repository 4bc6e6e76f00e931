"""The readers of binary files, as the fuzz tests call them: an unusable clip counts as an error of one line."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from binary_seeds import CLIPS

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache, read_features, read_shape
from signllava_cli.errors import UserError
from signllava_cli.prepare.validation.shard_reader import read_shard
from signllava_cli.processes import BeforeFile, call_in_child

OUT_OF_MEMORY = ("unable to allocate", "memoryerror", "memory allocation failed", "out of memory")


@contextlib.contextmanager
def clip_errors() -> Iterator[None]:
    """Turn the error of a clip into that of a user, notice warnings, and allocations that failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except UnreadableClip as error:
        require_no_allocation(str(error))
        raise UserError(str(error)) from None
    except UserError as error:
        require_no_allocation(str(error))
        raise


def require_no_allocation(message: str) -> None:
    if any(text in message.lower() for text in OUT_OF_MEMORY):
        raise MemoryError(message)


def read_feature_file(format: str, key: str = "") -> Callable[[Path], None]:
    """Reads a clip as `prepare pack` does."""

    def read(file: Path) -> None:
        source = ClipSource(file, format, key)
        with HDF5FileCache() as handles, clip_errors():
            read_shape(source, handles)
            read_features(source, handles)

    return read


def read_hdf5_clips(file: Path) -> None:
    """Reads the clips of a shard as `prepare pack` does, in a process of its own."""
    call_in_child(_read_hdf5_clips, file)


def _read_hdf5_clips(before_file: BeforeFile, file: Path) -> None:
    with HDF5FileCache(before_file) as handles:
        for clip in CLIPS:
            with contextlib.suppress(UserError), clip_errors():
                read_shape(ClipSource(file, "hdf5", clip), handles)
                read_features(ClipSource(file, "hdf5", clip), handles)


def check_shard(file: Path) -> None:
    """Reads a shard as `prepare check` does when it has crashed a worker."""
    facts = call_in_child(read_shard, file, False)
    errors = [facts.error, *(error for array in facts.arrays for error in array.failed_checks.values())]
    for error in errors:
        require_no_allocation(error)
        if len(error.splitlines()) > 1:
            raise UserError(error)
