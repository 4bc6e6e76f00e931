"""Being asked to stop: by the scheduler (SIGTERM, SIGUSR1) or by Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from signllava_cli.console import say


class StopRequest:
    """Set by a signal, read at the next boundary: an optimiser step, a decoded batch.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        say(f"{self.signal}: stopping at the next boundary, with everything saved.")

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
