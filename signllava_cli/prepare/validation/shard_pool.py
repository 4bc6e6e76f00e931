"""Reads the shards of all streams side by side, and outlives a file on which the HDF5 library crashes."""

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from signllava_cli.console import progress
from signllava_cli.prepare.validation.shard_reader import ShardFacts, read_shard
from signllava_cli.processes import cpu_cores, submit_all


def read_shards(files: Iterable[Path], workers: int | None, fast: bool) -> dict[Path, ShardFacts]:
    """What each of `files` holds. A worker that dies takes no other file's facts with it."""
    waiting = sorted(set(files))
    found: dict[Path, ShardFacts] = {}
    start_time, arrays = time.monotonic(), 0
    if not waiting:
        return found
    tasks = [(file, fast) for file in waiting]
    with (
        contextlib.suppress(BrokenProcessPool),  # those that are left are read one by one below
        submit_all(read_shard, tasks, workers or cpu_cores()) as jobs,
        progress("shards read", len(waiting)) as line,
    ):
        for job in as_completed(jobs):
            file, _ = jobs[job]
            facts = found[file] = job.result()
            arrays += len(facts.arrays)
            line.advance(note=f"{arrays / max(time.monotonic() - start_time, 1e-9):.0f} arrays/s")
    return found | {file: _read_alone(file, fast) for file in waiting if file not in found}


def _read_alone(file: Path, fast: bool) -> ShardFacts:
    try:
        with submit_all(read_shard, [(file, fast)], 1) as jobs:
            return next(iter(jobs)).result()
    except BrokenProcessPool:
        return ShardFacts([], f"{file}: reading it ends the process, by a crash or for want of memory")
