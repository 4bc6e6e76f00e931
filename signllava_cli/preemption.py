"""Requests to stop: from the scheduler (SIGTERM, SIGUSR1), Ctrl-C, a time limit, or the end of the launcher."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from signllava_cli.console import info

LAUNCHER_THREAD = "accelerate's launcher"
STOP_REQUESTED = "a request to stop"  # the note on an error after a request to stop


class StopRequest:
    """True when the run must stop at its next boundary: after an optimizer step or a decoded batch.

    A signal sets it. Its truth value also tests two conditions: `max_hours` have passed since the start of this
    process, or the launcher of this process has ended. (A launcher that is killed, or that a signal which it does not
    forward ends, would leave its ranks running.) A second Ctrl-C interrupts at once.
    """

    def __init__(self, max_hours: float | None = None) -> None:
        self.reason: str | None = None
        self._is_interrupted = False
        self._max_hours = max_hours
        self._deadline = float("inf") if max_hours is None else _process_start_time() + 3600 * max_hours
        self._launcher_pid = os.getppid() if is_launched() else None

    def __bool__(self) -> bool:
        if self.reason is None and time.monotonic() >= self._deadline:
            self._set_reason(f"train.max_hours={self._max_hours:g} reached")
        if self.reason is None and self._launcher_pid not in (None, os.getppid()):
            self._set_reason("the launcher has ended")
        return self.reason is not None

    def stop_with_others(self) -> None:
        """Record that another rank must stop, and this one with it."""
        if not self:
            self._set_reason("another rank was asked to stop")

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._is_interrupted:
            raise KeyboardInterrupt
        self._is_interrupted |= number == signal.SIGINT
        self._set_reason(signal.Signals(number).name)

    def _set_reason(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            info(f"{reason}: saving the state and stopping after the current step.")

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator["StopRequest"]:
        """Handle the signals inside the block; the previous handlers return after it.

        A RuntimeError that leaves the block after a request to stop has the note `STOP_REQUESTED`.
        """
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        previous_handlers = {number: signal.signal(number, self._handle_signal) for number in numbers}
        try:
            yield self
        except RuntimeError as failure:
            if self.reason is not None:
                failure.add_note(STOP_REQUESTED)
            raise
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)


def is_launched() -> bool:
    """Whether a launcher started this process: torchrun sets RANK, accelerate ACCELERATE_MIXED_PRECISION."""
    return "RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def is_launching() -> bool:
    """Whether accelerate's launcher runs in this process."""
    return any(thread.name == LAUNCHER_THREAD for thread in threading.enumerate())


def _process_start_time() -> float:
    """When this process started, on the clock of `time.monotonic`: imports and launching count too.

    From the ticks since boot in /proc, because `time.time` jumps when the clock of the machine is set.
    """
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # starttime of proc(5)
    seconds_since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic() - (seconds_since_boot - int(ticks) / os.sysconf("SC_CLK_TCK"))
