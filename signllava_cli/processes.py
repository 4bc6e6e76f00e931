"""Worker processes that end with the process they work for.

Fork or spawn: HDF5 can be used after a fork as long as each process opens its own files; h5py waits for its lock
before a fork and releases it in the child. What does not survive is torch, whose OpenMP threads hang in a child once
they have run in the parent. So workers that read HDF5 and NumPy alone are forked (`submitted`): spawn would run the
script of whoever calls our functions a second time. `prepare pack`, whose workers read bfloat16 through torch, spawns
them. tests/data/packing/test_workers.py holds both.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def cpu_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def submitted(
    work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[dict[Future[Result], tuple[Any, ...]]]:
    """`work(*task)` for each of `tasks` in forked workers: the jobs, each with its task. Start a progress bar inside.

    Workers start before a bar has its thread, and while signals wait. Jobs not begun are given up when the block
    fails. `work` must not use torch (see above).
    """
    count = min(workers, len(tasks))
    with ProcessPoolExecutor(count, get_context("fork"), initializer=begin_worker, initargs=(os.getpid(),)) as pool:
        with signals_held():
            jobs = {pool.submit(work, *task): task for task in tasks}
        try:
            yield jobs
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait until the block ends, in this process and in those it starts: these until `begin_worker`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def begin_worker(parent: int) -> None:
    """Leave signals, which a terminal sends to the whole group, to the parent; and end when it was killed.

    A killed parent cannot stop its workers, and a pool's own would wait for it for ever.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
