"""What one shard holds, every frame of it, told in a few numbers per array. Runs in worker processes."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from signllava_cli.data.doctor.catalogue import CONSTANT_FROM
from signllava_cli.data.shard import STORED, StoredClip, list_shard
from signllava_cli.errors import UserError

_MAGNITUDE, _INFINITE = 0x7FFF, 0x7C00  # of the bits of a float16; NaN has more bits than infinity


class ArrayFacts(NamedTuple):
    """One array: its shape, what is wrong with it, and a digest of its frames.

    `ailments`: finding -> detail. `digest` is empty where no frames were read, and where all of them are zero.
    """

    recording: str
    clip: str
    frames: int
    width: int
    ailments: Mapping[str, str]
    digest: bytes


@dataclass
class ShardFacts:
    """What a shard holds; `fault`: why it could not be read to its end, or empty."""

    arrays: list[ArrayFacts]
    fault: str = ""


def read_shard(file: Path, fast: bool) -> ShardFacts:
    """Every array of `file`; `fast`: by its shape alone."""
    shard = ShardFacts([])
    try:
        with h5py.File(file, "r") as handle, open(file, "rb") as raw:
            for stored in list_shard(file):
                shard.arrays.append(_facts(stored) if fast or stored.fault else _read(stored, handle, raw.fileno()))
    except UserError as fault:
        shard.fault = str(fault)
    except Exception as fault:  # a spoiled file makes h5py raise anything, and the other files are still to be read
        shard.fault = f"{file}: {fault}"
    return shard


def _facts(stored: StoredClip, found: Mapping[str, str] | None = None, digest: bytes = b"") -> ArrayFacts:
    """What the shape and the type tell, and what was `found` in the frames."""
    ailments = dict(found or {})
    if stored.fault:
        ailments[_kind_of(stored.fault)] = stored.fault
    elif stored.dtype != str(STORED):
        ailments["features-dtype"] = stored.dtype
    if not stored.fault and not stored.frames:
        ailments["features-empty"] = ""
    return ArrayFacts(stored.recording, stored.clip, stored.frames, stored.width, ailments, digest)


def _kind_of(fault: str) -> str:
    if fault.startswith("shape "):
        return "features-shape"
    return "features-not-numbers" if fault.endswith("in place of numbers") else "features-no-array"


def _read(stored: StoredClip, handle: h5py.File, raw: int) -> ArrayFacts:
    """What the frames tell. NaN, infinity and zero are told by the bits: numpy is slow with float16."""
    try:
        bits = _float16(stored, handle, raw).view(np.uint16)
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as fault:
        return _facts(stored, {"features-damaged": str(fault)})
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
    if len(bits) >= CONSTANT_FROM and (bits[1] == bits[0]).all() and (bits == bits[0]).all():
        found["features-constant"] = ""
    digest = hashlib.blake2b(bits.data, digest_size=12, salt=stored.width.to_bytes(8, "little")).digest()
    return _facts(stored, found, digest)


def _float16(stored: StoredClip, handle: h5py.File, raw: int) -> np.ndarray:
    """The frames as training reads them: (frames, width) float16, what it cannot hold as infinity."""
    if stored.offset < 0:
        frames = np.asarray(handle[stored.recording][stored.clip][()])
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(frames, STORED)
    size = stored.frames * stored.width * STORED.itemsize
    content = os.pread(raw, size, stored.offset)
    if len(content) != size:
        raise ValueError("the file ends too early")
    return np.frombuffer(content, STORED).reshape(stored.frames, stored.width)
