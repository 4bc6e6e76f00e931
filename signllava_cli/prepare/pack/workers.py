"""Shards written in worker processes. Only the parent gives a shard its final name, so no orphan can."""

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
from signllava_cli.errors import RunStopped, UserError
from signllava_cli.files import TEMPORARY_SUFFIX, fsync
from signllava_cli.preemption import StopRequest
from signllava_cli.prepare.pack.shard_writer import Shard, write_shard
from signllava_cli.processes import block_signals, init_worker

POLL_SECONDS = 0.2


def write_shards(shards: Sequence[Shard], workers: int) -> None:
    """Write `shards`, each under a temporary name until it is whole.

    Raises:
        UserError: a shard cannot be written, or a worker was killed.
        Stopped: a signal asked for it; the shards that are whole stay.
    """
    context = multiprocessing.get_context("spawn")  # processes.py says why not fork
    clips_done, stop = RawArray("q", len(shards)), RawValue("b", 0)
    with (
        StopRequest().handle_signals() as request,
        progress("packing clips", sum(len(shard.clips) for shard in shards)) as line,
        ProcessPoolExecutor(
            min(workers, len(shards)), context, _init_worker, (os.getpid(), clips_done, stop)
        ) as pool,
    ):
        waiting: dict[Future[Path], Shard] = {}
        start_time = time.monotonic()
        try:
            with block_signals():
                for number, shard in enumerate(shards):
                    waiting[pool.submit(_write_one, number, shard)] = shard
            while waiting and not request:
                ended, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    _rename_to_final(future.result(), waiting.pop(future).file)
                if new := sum(clips_done) - line.done:
                    rate = (line.done + new) / (time.monotonic() - start_time)
                    line.advance(new, f"{rate:.0f} clips/s")
        except BrokenProcessPool:
            if not request:
                raise UserError(
                    "A worker was killed from outside, by the system if memory ran out: give fewer --workers, and "
                    "run the command again; the shards that are whole stay."
                ) from None
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)
            for future in [each for each in waiting if not each.cancelled() and not each.exception()]:
                _rename_to_final(future.result(), waiting.pop(future).file)  # came to its end while others stopped
    if waiting:
        raise RunStopped(f"stopped by {request.reason}, {len(waiting)} shards are left: run the same command again.")


def _rename_to_final(temporary: Path, file: Path) -> None:
    temporary.replace(file)
    fsync(file.parent)


# ---- in a worker ----

_shared: tuple[Any, Any]  # clips done by shard, and whether to stop: memory of the parent


class _StopWorker(Exception):
    """The parent wants no more."""


def _init_worker(parent: int, clips_done: Any, stop: Any) -> None:
    global _shared
    _shared = clips_done, stop
    init_worker(parent)


def _write_one(number: int, shard: Shard) -> Path:
    """Write a shard, and tell its temporary name, which no other process has."""
    clips_done, stop = _shared
    temporary = shard.file.with_name(f"{shard.file.name}.{os.getpid()}{TEMPORARY_SUFFIX}")

    def after_clip() -> None:
        clips_done[number] += 1
        if stop.value:
            raise _StopWorker

    try:
        write_shard(shard, temporary, after_clip)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary
