"""Writes shards in worker processes. Only the parent gives a shard its final name; an orphaned worker cannot."""

import contextlib
import glob
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from typing import Any

from signllava_cli.console import progress
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache, read_features
from signllava_cli.errors import RunStopped, UserError, format_count
from signllava_cli.files import TEMPORARY_SUFFIX, fsync, write_errors_as_user_errors
from signllava_cli.preemption import StopRequest
from signllava_cli.prepare.pack.shard_writer import Shard, write_shard
from signllava_cli.processes import (
    POLL_SECONDS,
    BeforeFile,
    ReadCrash,
    StopWorker,
    block_signals,
    call_in_child,
    describe_crash,
    init_worker,
)

MAX_CRASHES = 8  # of clips of one file in one shard; then its other clips are skipped


def write_shards(shards: Sequence[Shard], workers: int) -> None:
    """Write `shards`, each under a temporary name until it is complete. A clip that crashes its reader is skipped.

    Raises:
        UserError: a shard cannot be written, or a worker was killed.
        RunStopped: a signal arrived; completed shards are kept.
    """
    while shards:
        num_clips_done = RawArray("q", len(shards))
        shards = _write_until_crash(shards, workers, num_clips_done)


def _write_until_crash(shards: Sequence[Shard], workers: int, num_clips_done: Any) -> list[Shard]:
    """Write `shards`; after a crash, those that are left, with the clips that crashed their reader."""
    context = multiprocessing.get_context("spawn")  # processes.py says why not fork
    stop = RawValue("b", 0)
    with (
        StopRequest().handle_signals() as request,
        progress("packing clips", sum(len(shard.clips) for shard in shards)) as bar,
        ProcessPoolExecutor(
            min(workers, len(shards)), context, _init_worker, (os.getpid(), num_clips_done, stop)
        ) as pool,
    ):
        pending: dict[Future[Path], Shard] = {}
        start_time, has_crashed = time.monotonic(), False
        try:
            with block_signals():
                for index, shard in enumerate(shards):
                    pending[pool.submit(_write_one, index, shard)] = shard
            while pending and not request:
                finished, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    temporary = future.result()
                    _rename_to_final(temporary, pending.pop(future).file)
                if num_new := sum(num_clips_done) - bar.done:
                    rate = (bar.done + num_new) / (time.monotonic() - start_time)
                    bar.advance(num_new, f"{rate:.0f} clips/s")
        except BrokenProcessPool:
            has_crashed = True
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)
            for future in [future for future in pending if not future.cancelled() and not future.exception()]:
                _rename_to_final(future.result(), pending.pop(future).file)  # finished while the others stopped
        if has_crashed and not request:  # now that no worker writes any more
            return _find_crashes([(shard, num_clips_done[shards.index(shard)]) for shard in pending.values()])
    if pending:
        count = format_count(len(pending), "shard is", "shards are")
        raise RunStopped(f"stopped by {request.reason}, {count} not written yet; run the same command again.")
    return []


def _find_crashes(shards: Sequence[tuple[Shard, int]]) -> list[Shard]:
    """The shards after a crash, with the clips that caused it. Each shard has the number of its clips that were read.

    Raises:
        UserError: no clip causes it, so a worker was killed.
    """
    left, num_crashes = [], 0
    for shard, num_done in shards:
        for temporary in shard.file.parent.glob(f"{glob.escape(shard.file.name)}.*{TEMPORARY_SUFFIX}"):
            temporary.unlink()
        crashes = _find_crash(shard, num_done)
        num_crashes += len(crashes)
        left.append(replace(shard, crashes={**shard.crashes, **crashes}))
    if not num_crashes:
        raise UserError(
            "A worker process was killed, perhaps by the system because memory ran out; run the command "
            "again with fewer --workers. Completed shards are kept."
        )
    return left


def _find_crash(shard: Shard, num_done: int) -> dict[str, str]:
    """The clip after the first `num_done` if reading it crashes a process; at last all clips after it in its file."""
    remaining = list(shard.clips)[num_done:]
    if not remaining or remaining[0] in shard.crashes:
        return {}
    source = shard.clips[remaining[0]]
    try:
        call_in_child(_try_clip, source)
    except ReadCrash as error:
        if -error.code != signal.SIGKILL:
            reason = describe_crash(error.code)
            num_crashes = 1 + sum(shard.clips[clip].file == source.file for clip in shard.crashes)
            if num_crashes < MAX_CRASHES:
                return {remaining[0]: reason}
            reason = f"{reason}, like {format_count(num_crashes - 1, 'clip')} before it"
            return {clip: reason for clip in remaining if shard.clips[clip].file == source.file}
    return {}


def _try_clip(before_file: BeforeFile, source: ClipSource) -> None:
    with HDF5FileCache(before_file) as handles, contextlib.suppress(UnreadableClip):
        read_features(source, handles)


def _rename_to_final(temporary: Path, file: Path) -> None:
    with write_errors_as_user_errors(file):
        temporary.replace(file)
        fsync(file.parent)


# ---- in a worker ----

_shared: tuple[Any, Any]  # number of clips done per shard, and the stop flag; memory shared with the parent


def _init_worker(parent: int, num_clips_done: Any, stop: Any) -> None:
    global _shared
    _shared = num_clips_done, stop
    init_worker(parent)


def _write_one(index: int, shard: Shard) -> Path:
    """Write a shard, and return its temporary file, whose name contains the process id."""
    num_clips_done, stop = _shared
    temporary = shard.file.with_name(f"{shard.file.name}.{os.getpid()}{TEMPORARY_SUFFIX}")

    def after_clip() -> None:
        num_clips_done[index] += 1
        if stop.value:
            raise StopWorker

    try:
        write_shard(shard, temporary, after_clip)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary
