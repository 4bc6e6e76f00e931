"""Worker processes that end with the process they work for."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SECONDS_BETWEEN_LOOKS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of forked workers; submit to it before a progress bar starts its thread, and with `signals_held`.

    fork, as in torch's loader: spawn would run the script of whoever calls our functions a second time.
    """
    return ProcessPoolExecutor(workers, get_context("fork"), initializer=begin_worker, initargs=(os.getpid(),))


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
