"""Reads the shards of all streams side by side, and outlives a file on which the HDF5 library crashes."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from signllava_cli.console import progress
from signllava_cli.data.doctor.shard_reading import ShardFacts, read_shard
from signllava_cli.processes import process_pool


def read_shards(files: Iterable[Path], workers: int | None, fast: bool) -> dict[Path, ShardFacts]:
    """What each of `files` holds. A worker that dies takes no other file's facts with it."""
    waiting = sorted(set(files))
    found: dict[Path, ShardFacts] = {}
    began, arrays = time.monotonic(), 0
    if not waiting:
        return found
    with process_pool(min(workers or len(os.sched_getaffinity(0)), len(waiting))) as pool:
        jobs = {pool.submit(read_shard, file, fast): file for file in waiting}
        try:
            with progress("shards read", len(waiting)) as line:
                for job in as_completed(jobs):
                    facts = found[jobs[job]] = job.result()
                    arrays += len(facts.arrays)
                    line.advance(note=f"{arrays / max(time.monotonic() - began, 1e-9):.0f} arrays/s")
        except BrokenProcessPool:
            pass  # those that are left are read one by one below
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found | {file: _read_alone(file, fast) for file in waiting if file not in found}


def _read_alone(file: Path, fast: bool) -> ShardFacts:
    with process_pool(1) as pool:
        try:
            return pool.submit(read_shard, file, fast).result()
        except BrokenProcessPool:
            return ShardFacts([], f"{file}: reading it ends the process, by a crash or for want of memory")
