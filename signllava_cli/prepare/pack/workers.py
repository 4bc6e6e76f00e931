"""Writes shards in worker processes. Only the parent gives a shard its final name; an orphaned worker cannot."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from typing import Any

from signllava_cli.console import progress
from signllava_cli.errors import RunStopped, UserError, format_count
from signllava_cli.files import TEMPORARY_SUFFIX, fsync
from signllava_cli.preemption import StopRequest
from signllava_cli.prepare.pack.shard_writer import Shard, write_shard
from signllava_cli.processes import block_signals, init_worker

POLL_SECONDS = 0.2


def write_shards(shards: Sequence[Shard], workers: int) -> None:
    """Write `shards`, each under a temporary name until it is complete.

    Raises:
        UserError: a shard cannot be written, or a worker was killed.
        RunStopped: a signal arrived; completed shards are kept.
    """
    context = multiprocessing.get_context("spawn")  # processes.py says why not fork
    num_clips_done, stop = RawArray("q", len(shards)), RawValue("b", 0)
    with (
        StopRequest().handle_signals() as request,
        progress("packing clips", sum(len(shard.clips) for shard in shards)) as bar,
        ProcessPoolExecutor(
            min(workers, len(shards)), context, _init_worker, (os.getpid(), num_clips_done, stop)
        ) as pool,
    ):
        pending: dict[Future[Path], Shard] = {}
        start_time = time.monotonic()
        try:
            with block_signals():
                for index, shard in enumerate(shards):
                    pending[pool.submit(_write_one, index, shard)] = shard
            while pending and not request:
                finished, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    _rename_to_final(future.result(), pending.pop(future).file)
                if num_new := sum(num_clips_done) - bar.done:
                    rate = (bar.done + num_new) / (time.monotonic() - start_time)
                    bar.advance(num_new, f"{rate:.0f} clips/s")
        except BrokenProcessPool:
            if not request:
                raise UserError(
                    "A worker process was killed, perhaps by the system because memory ran out; run the command "
                    "again with fewer --workers. Completed shards are kept."
                ) from None
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)
            for future in [future for future in pending if not future.cancelled() and not future.exception()]:
                _rename_to_final(future.result(), pending.pop(future).file)  # finished while the others stopped
    if pending:
        count = format_count(len(pending), "shard is", "shards are")
        raise RunStopped(f"stopped by {request.reason}, {count} not written yet; run the same command again.")


def _rename_to_final(temporary: Path, file: Path) -> None:
    temporary.replace(file)
    fsync(file.parent)


# ---- in a worker ----

_shared: tuple[Any, Any]  # number of clips done per shard, and the stop flag; memory shared with the parent


class _StopWorker(Exception):
    """The parent has set the stop flag."""


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
            raise _StopWorker

    try:
        write_shard(shard, temporary, after_clip)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary
