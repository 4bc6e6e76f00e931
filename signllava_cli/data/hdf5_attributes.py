"""Reads attributes of HDF5 files whose sizes are not believed: a damaged one must not exhaust memory."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

MAX_ATTRIBUTE_BYTES = 2**16  # of an attribute that is not a text of variable length; HDF5's limit
MARGIN_BYTES = 32 * 2**20  # that HDF5 and NumPy may need beside the text


def read_attribute(item: h5py.File | h5py.Dataset, name: str) -> Any:
    """The attribute `name` of `item`, or None if there is none.

    Raises:
        ValueError: it cannot be read, or declares more than a file can hold.
    """
    try:
        if name not in item.attrs:
            return None
        attribute = item.attrs.get_id(name)
        size = attribute.get_storage_size()
        if size > MAX_ATTRIBUTE_BYTES:
            raise ValueError(f"declares {size:,} bytes")
        if attribute.get_type().get_class() != h5py.h5t.STRING:
            return item.attrs[name]
        with _memory_limit(os.stat(item.file.filename).st_size + MARGIN_BYTES):
            return item.attrs[name]
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise ValueError(f"the attribute {name} is damaged: {str(error) or type(error).__name__}") from None


@contextlib.contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Let this process allocate `size` more bytes: HDF5 allocates up to 4 GiB for a text whose length is damaged.

    The limit holds for all threads, so attributes are read in processes that have no other busy thread.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + size
    if soft != resource.RLIM_INFINITY and soft <= limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
