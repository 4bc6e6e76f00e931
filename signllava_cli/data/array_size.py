"""Compares the size that a header declares with that of its file: no header makes us allocate far more than it."""

import math
from collections.abc import Sequence

import numpy as np

MAX_EXPANSION = 16  # unpacked bytes per byte of a file
MAX_UNPACKED_BYTES = 64 * 2**20  # of an array that expands more


def require_size_in_file(shape: Sequence[int], dtype: np.dtype, file_size: int, is_compressed: bool = True) -> None:
    """Check that `file_size` bytes can hold an array.

    Raises:
        ValueError: they cannot; of compressed numbers, an array expands the file more than `MAX_EXPANSION` times.
    """
    if any(size < 0 for size in shape):
        raise ValueError(f"declares the shape {tuple(shape)}")
    size = math.prod(shape) * dtype.itemsize
    limit = max(MAX_EXPANSION * file_size, MAX_UNPACKED_BYTES) if is_compressed else file_size
    if size > limit:
        raise ValueError(f"declares {size:,} bytes, but {'at most ' if is_compressed else ''}{limit:,} are possible")
