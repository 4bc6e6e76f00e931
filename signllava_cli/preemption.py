"""Being asked to stop: by the scheduler (SIGTERM, SIGUSR1), by Ctrl-C, by the clock, by the end of the launcher."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from signllava_cli.console import info

LAUNCHER_THREAD = "accelerate's launcher"


class StopRequest:
    """Set by a signal or by what it looks at when it is read: at each boundary, an optimizer step, a decoded batch.

    It is also set `max_hours` after the start of this process, and when the launcher of this process is gone: a
    launcher that was killed, or that dies of a signal which it does not pass on, would leave its ranks at work.
    A second Ctrl-C interrupts at once.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.reason: str | None = None
        self._interrupted = False
        self._max_hours = max_hours
        self._deadline = float("inf") if max_hours is None else _process_start_time() + 3600 * max_hours
        self._launcher = os.getppid() if is_launched() else None

    def __bool__(self) -> bool:
        if self.reason is None and time.monotonic() >= self._deadline:
            self._ask(f"train.max_hours={self._max_hours:g} reached")
        if self.reason is None and self._launcher not in (None, os.getppid()):
            self._ask("the launcher is gone")
        return self.reason is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self._ask(signal.Signals(number).name)

    def _ask(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            info(f"{reason}: stopping at the next boundary, with everything saved.")

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Take the signals inside the block, and give them back to their former owners after it."""
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield self
        finally:
            for number, owner in before.items():
                signal.signal(number, owner)


def is_launched() -> bool:
    """Whether a launcher started this process: torchrun gives it a rank, accelerate a precision."""
    return "RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def is_launching() -> bool:
    """Whether accelerate's launcher is at work in this process, as when a signal comes before there are ranks."""
    return any(thread.name == LAUNCHER_THREAD for thread in threading.enumerate())


def _process_start_time() -> float:
    """When this process started, on the clock of `time.monotonic`; imports and the launcher's part count."""
    import psutil

    return time.monotonic() - (time.time() - psutil.Process().create_time())
