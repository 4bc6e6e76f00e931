"""Worker processes that end with the process they work for."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SECONDS_BETWEEN_LOOKS = 0.2


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of forked workers; submit to it before a progress bar starts its thread.

    fork, as in torch's loader: spawn would run the script of whoever calls our functions a second time. Ctrl-C is the
    parent's to answer, and a worker whose parent was killed ends itself.
    """
    return ProcessPoolExecutor(workers, get_context("fork"), initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
