"""Reads all frames of all shards in worker processes, and keeps a few facts of each array."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from signllava_cli.console import progress
from signllava_cli.data.shard import HDF5_ERRORS, STORED_DTYPE, StoredClip, list_shard
from signllava_cli.errors import UserError, first_line
from signllava_cli.prepare.validation.checks import MIN_CONSTANT_FRAMES
from signllava_cli.processes import (
    BeforeFile,
    ReadCrash,
    call_in_child,
    cpu_cores,
    describe_crash,
    limit_cpu_time,
    limit_reading,
    submit_all,
)

_MAGNITUDE_MASK, _INFINITY = 0x7FFF, 0x7C00  # bits of a float16; those of NaN are greater than those of infinity


class ArrayFacts(NamedTuple):
    """The shape of one array, the checks that it fails, and a digest of its frames.

    `failed_checks`: name -> detail. `digest` is empty if no frames were read, or all of them are zero.
    """

    recording: str
    clip: str
    frames: int
    width: int
    failed_checks: Mapping[str, str]
    digest: bytes


@dataclass
class ShardFacts:
    """The arrays of a shard. `error`: why it could not be read completely, or empty."""

    arrays: list[ArrayFacts]
    error: str = ""


def read_shards(files: Iterable[Path], workers: int | None, fast: bool) -> dict[Path, ShardFacts]:
    """The facts of each of `files`. If the HDF5 library crashes on a file, the others are still read."""
    pending = sorted(set(files))
    facts_of: dict[Path, ShardFacts] = {}
    start_time, num_arrays = time.monotonic(), 0
    if not pending:
        return facts_of
    tasks = [(file, fast) for file in pending]
    with (
        contextlib.suppress(BrokenProcessPool),  # the remaining files are read one by one below
        submit_all(_read_in_worker, tasks, workers or cpu_cores()) as jobs,
        progress("shards read", len(pending)) as bar,
    ):
        for job in as_completed(jobs):
            file, _ = jobs[job]
            facts = facts_of[file] = job.result()
            num_arrays += len(facts.arrays)
            bar.advance(note=f"{num_arrays / max(time.monotonic() - start_time, 1e-9):.0f} arrays/s")
    return facts_of | {file: _read_alone(file, fast) for file in pending if file not in facts_of}


def _read_alone(file: Path, fast: bool) -> ShardFacts:
    try:
        return call_in_child(read_shard, file, fast)
    except ReadCrash as error:
        return ShardFacts([], f"{file}: {describe_crash(error.code)}")


def _read_in_worker(file: Path, fast: bool) -> ShardFacts:
    return read_shard(limit_reading, file, fast)


def read_shard(before_file: BeforeFile, file: Path, fast: bool) -> ShardFacts:
    """The facts of every array of `file`; `fast`: only its shape is read. For `call_in_child`."""
    shard = ShardFacts([])
    try:
        before_file(file)
        with h5py.File(file, "r") as handle, open(file, "rb") as raw:
            for stored in list_shard(file):
                limit_cpu_time()
                shard.arrays.append(
                    _make_facts(stored) if fast or stored.error else _check_frames(stored, handle, raw.fileno())
                )
    except UserError as error:
        shard.error = str(error)
    except Exception as error:  # h5py raises any exception for a corrupt file; the other files must still be read
        shard.error = f"{file}: {first_line(error)}"
    return shard


def _make_facts(
    stored: StoredClip, failed_frame_checks: Mapping[str, str] | None = None, digest: bytes = b""
) -> ArrayFacts:
    """Adds the failed checks of shape and dtype to those of the frames."""
    failed_checks = dict(failed_frame_checks or {})
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
    if error.startswith("damaged: "):
        return "features-damaged"
    return "features-not-numbers" if error.endswith("expected numbers") else "features-no-array"


def _check_frames(stored: StoredClip, handle: h5py.File, raw: int) -> ArrayFacts:
    """Checks the values of the frames by their bits, because numpy is slow with float16."""
    try:
        bits = _read_float16(stored, handle, raw).view(np.uint16)
    except HDF5_ERRORS as error:
        return _make_facts(stored, {"features-damaged": first_line(error)})
    if not bits.size:
        return _make_facts(stored)
    magnitudes = bits & _MAGNITUDE_MASK
    largest = int(magnitudes.max())
    if largest == 0:
        return _make_facts(stored, {"features-zero": ""})
    failed_checks = {}
    if largest > _INFINITY:
        failed_checks["features-nan"] = ""
    if largest >= _INFINITY and (magnitudes == _INFINITY).any():
        failed_checks["features-inf"] = ""
    if len(bits) >= MIN_CONSTANT_FRAMES and (bits[1] == bits[0]).all() and (bits == bits[0]).all():
        failed_checks["features-constant"] = ""
    digest = hashlib.blake2b(bits.data, digest_size=12, salt=stored.width.to_bytes(8, "little")).digest()
    return _make_facts(stored, failed_checks, digest)


def _read_float16(stored: StoredClip, handle: h5py.File, raw: int) -> np.ndarray:
    """The frames as training reads them: (frames, width) float16, with infinity for values outside its range."""
    if stored.offset < 0:
        frames = np.asarray(handle[stored.recording][stored.clip][()])
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(frames, STORED_DTYPE)
    size = stored.frames * stored.width * STORED_DTYPE.itemsize
    content = os.pread(raw, size, stored.offset)
    if len(content) != size:
        raise ValueError("the file ends too early")
    return np.frombuffer(content, STORED_DTYPE).reshape(stored.frames, stored.width)
