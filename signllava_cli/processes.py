"""Processes that this one starts: workers end with it, commands get its signals.

Fork or spawn: HDF5 can be used after a fork as long as each process opens its own files; h5py waits for its lock
before a fork and releases it in the child. What does not survive is torch, whose OpenMP threads hang in a child once
they have run in the parent. So workers that read HDF5 and NumPy alone are forked (`submitted`): spawn would run the
script of whoever calls our functions a second time. `prepare pack`, whose workers read bfloat16 through torch, spawns
them. tests/data/packing/test_workers.py holds both.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from signllava_cli.console import info
from signllava_cli.errors import RunStopped

Result = TypeVar("Result")

INTERRUPTED = 130
POLL_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PASSED_ON = {signal.SIGTERM: signal.SIGTERM, signal.SIGUSR1: signal.SIGUSR1, signal.SIGINT: signal.SIGTERM}


def cpu_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def submit_all(
    work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[dict[Future[Result], tuple[Any, ...]]]:
    """`work(*task)` for each of `tasks` in forked workers: the jobs, each with its task. Start a progress bar inside.

    Workers start before a bar has its thread, and while signals wait. Jobs not begun are given up when the block
    fails. `work` must not use torch (see above).
    """
    count = min(workers, len(tasks))
    with ProcessPoolExecutor(count, get_context("fork"), initializer=init_worker, initargs=(os.getpid(),)) as pool:
        with block_signals():
            jobs = {pool.submit(work, *task): task for task in tasks}
        try:
            yield jobs
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Signals wait until the block ends, in this process and in those it starts: these until `begin_worker`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def init_worker(parent: int) -> None:
    """Leave signals, which a terminal sends to the whole group, to the parent; and end when it was killed.

    A killed parent cannot stop its workers, and a pool's own would wait for it for ever.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_command(command: Sequence[str | Path], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as `subprocess.run` does; signals are passed on to it, and waited for.

    Raises:
        Stopped: the command stopped with its state saved, or it ended after a signal other than Ctrl-C.
        KeyboardInterrupt: it was interrupted.
    """
    with signals_passed_on() as came:
        process = subprocess.Popen(command, text=True, **options)
        out, err = process.communicate()
    code = process.returncode
    if code == INTERRUPTED or (signal.SIGINT in came and code != RunStopped.exit_code):
        raise KeyboardInterrupt
    if came or code == RunStopped.exit_code:
        by = f"stopped by {came[0].name}" if came else "stopped"
        raise RunStopped(f"{by}. Run the same command again.")
    return subprocess.CompletedProcess(process.args, code, out, err)


@contextlib.contextmanager
def signals_passed_on() -> Iterator[list[signal.Signals]]:
    """Pass signals on to the processes that this one started; the list that comes back grows by those that came.

    Ctrl-C goes on as SIGTERM, since a process of the same process group has had the SIGINT already. A second Ctrl-C
    kills them.

    Raises:
        Stopped: a signal came while there was no such process.
    """
    came: list[signal.Signals] = []

    def receive(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        children = psutil.Process().children()
        if name == signal.SIGINT and (name in came or not children):
            _kill(children)
            raise KeyboardInterrupt
        if not children:
            raise RunStopped(f"stopped by {name.name} before the work began. Run the same command again.")
        came.append(name)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(PASSED_ON[name])
        if name == signal.SIGINT:
            info("Ctrl-C: waiting until everything is saved. Ctrl-C again kills what still runs.")

    before = {number: signal.signal(number, receive) for number in PASSED_ON}
    try:
        yield came
    finally:
        for number, owner in before.items():
            signal.signal(number, owner)


def _kill(children: list[psutil.Process]) -> None:
    """Kill them and what they started themselves."""
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (child, *child.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
