"""What one shard holds, every frame of it, told in a few numbers per array. Runs in worker processes."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from signllava_cli.data.shard import STORED_DTYPE, StoredClip, list_shard
from signllava_cli.errors import UserError
from signllava_cli.prepare.validation.checks import MIN_CONSTANT_FRAMES

_MAGNITUDE, _INFINITE = 0x7FFF, 0x7C00  # of the bits of a float16; NaN has more bits than infinity


class ArrayFacts(NamedTuple):
    """One array: its shape, what is wrong with it, and a digest of its frames.

    `ailments`: finding -> detail. `digest` is empty where no frames were read, and where all of them are zero.
    """

    recording: str
    clip: str
    frames: int
    width: int
    failed_checks: Mapping[str, str]
    digest: bytes


@dataclass
class ShardFacts:
    """What a shard holds; `error`: why it could not be read to its end, or empty."""

    arrays: list[ArrayFacts]
    error: str = ""


def read_shard(file: Path, fast: bool) -> ShardFacts:
    """Every array of `file`; `fast`: by its shape alone."""
    shard = ShardFacts([])
    try:
        with h5py.File(file, "r") as handle, open(file, "rb") as raw:
            for stored in list_shard(file):
                shard.arrays.append(_facts(stored) if fast or stored.error else _read(stored, handle, raw.fileno()))
    except UserError as error:
        shard.error = str(error)
    except Exception as error:  # a spoiled file makes h5py raise anything, and the other files are still to be read
        shard.error = f"{file}: {error}"
    return shard


def _facts(stored: StoredClip, found: Mapping[str, str] | None = None, digest: bytes = b"") -> ArrayFacts:
    """What the shape and the type tell, and what was `found` in the frames."""
    failed_checks = dict(found or {})
    if stored.error:
        failed_checks[_check_name(stored.error)] = stored.error
    elif stored.dtype != str(STORED_DTYPE):
        failed_checks["features-dtype"] = stored.dtype
    if not stored.error and not stored.frames:
        failed_checks["features-empty"] = ""
    return ArrayFacts(stored.recording, stored.clip, stored.frames, stored.width, failed_checks, digest)


def _check_name(error: str) -> str:
    if error.startswith("shape "):
        return "features-shape"
    return "features-not-numbers" if error.endswith("in place of numbers") else "features-no-array"


def _read(stored: StoredClip, handle: h5py.File, raw: int) -> ArrayFacts:
    """What the frames tell. NaN, infinity and zero are told by the bits: numpy is slow with float16."""
    try:
        bits = _float16(stored, handle, raw).view(np.uint16)
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        return _facts(stored, {"features-damaged": str(error)})
    if not bits.size:
        return _facts(stored)
    magnitudes = bits & _MAGNITUDE
    largest = int(magnitudes.max())
    if largest == 0:
        return _facts(stored, {"features-zero": ""})
    found = {}
    if largest > _INFINITE:
        found["features-nan"] = ""
    if largest >= _INFINITE and (magnitudes == _INFINITE).any():
        found["features-inf"] = ""
    if len(bits) >= MIN_CONSTANT_FRAMES and (bits[1] == bits[0]).all() and (bits == bits[0]).all():
        found["features-constant"] = ""
    digest = hashlib.blake2b(bits.data, digest_size=12, salt=stored.width.to_bytes(8, "little")).digest()
    return _facts(stored, found, digest)


def _float16(stored: StoredClip, handle: h5py.File, raw: int) -> np.ndarray:
    """The frames as training reads them: (frames, width) float16, what it cannot hold as infinity."""
    if stored.offset < 0:
        frames = np.asarray(handle[stored.recording][stored.clip][()])
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(frames, STORED_DTYPE)
    size = stored.frames * stored.width * STORED_DTYPE.itemsize
    content = os.pread(raw, size, stored.offset)
    if len(content) != size:
        raise ValueError("the file ends too early")
    return np.frombuffer(content, STORED_DTYPE).reshape(stored.frames, stored.width)
