"""One task at a time in a background thread, whose error is raised in the main thread."""

import threading
from collections.abc import Callable


class BackgroundTask:
    """Runs one task at a time in a thread, while the main thread goes on.

    An error of the task is raised once, by the next call of a method after it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, function: Callable[[], object]) -> None:
        """Call `function` in a thread, when the task before has ended."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the end of the task; signals are handled meanwhile."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error of the task, if it has failed already."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            self._error = error
