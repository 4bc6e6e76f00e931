"""What a person sees: messages, tables and progress, on rank 0 alone, as plain lines when no terminal is there."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_PLAIN_LINES = 10.0
PLAIN_WIDTH = 160  # of a table in a file or a pipe

# A launcher (torchrun, accelerate, DeepSpeed) tells each process its rank before torch is imported.
IS_MAIN_PROCESS = int(os.environ.get("RANK", "0")) == 0

stdout_console = Console(
    quiet=not IS_MAIN_PROCESS,
    soft_wrap=True,
    highlight=False,
    width=None if sys.stdout.isatty() else PLAIN_WIDTH,
)
all_ranks_console = Console(soft_wrap=True, highlight=False, width=stdout_console.width)
stderr_console = Console(stderr=True, soft_wrap=True, highlight=False)
_log: Console | None = None


def info(message: str, style: str | None = None, all_ranks: bool = False) -> None:
    """Print one line, and write it to the run's log when one is open."""
    (all_ranks_console if all_ranks else stdout_console).print(message, style=style, markup=False)
    if _log is not None:
        _log.print(time.strftime("%Y-%m-%d %H:%M:%S"), message, markup=False)


def warning(message: str, all_ranks: bool = False) -> None:
    """Print one line that the user should not miss."""
    info(f"warning: {message}", style="yellow", all_ranks=all_ranks)


def error(message: str) -> None:
    """Print an error on stderr, from any rank."""
    stderr_console.print(f"error: {message}", style="bold red", markup=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is text, the others are aligned as numbers."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: a name may look like rich's markup
    for console in (stdout_console, _log):
        if console is not None:
            console.print(table)


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append everything that is said inside the block to `path`, on rank 0."""
    global _log
    if not IS_MAIN_PROCESS:
        yield
        return
    with open(path, "a", encoding="utf-8") as file:
        _log = Console(file=file, width=PLAIN_WIDTH, soft_wrap=True, highlight=False)
        try:
            yield
        finally:
            _log = None


class ProgressBar:
    """One bar on a terminal; elsewhere a plain line every few seconds."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._started, self._done_at_start = time.monotonic(), done
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if stdout_console.is_terminal and IS_MAIN_PROCESS:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=stdout_console,
            )
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=done, note="")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Count `by` more units as done; `note` stands at the end of the line."""
        self.done += by
        if self._bar is not None:
            self._bar.update(self._task, advance=by, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES or self.done >= self.total:
            self._last_line = now
            left = (self.total - self.done) / self.rate if self.rate else 0.0
            info(f"{self.label} {self.done}/{self.total}  ETA {left:.0f} s  {note}".rstrip())

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._done_at_start) / max(time.monotonic() - self._started, 1e-9)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[ProgressBar]:
    """A progress line for `total` units of work, of which `done` are behind us."""
    line = ProgressBar(label, total, done)
    try:
        yield line
    finally:
        line.stop()


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the screen; what matters of it is said in our words."""
    # DeepSpeed announces at import that it found no GPU; a CPU run is not news
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    # On a CPU with AVX-512-BF16 bitsandbytes looks for a faster kernel in the hub's kernels-community and warns where
    # there is none, "Failed to load CPU gemm_4bit_forward from kernels-community: ..."; its own kernel does the same:
    # https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/backends/cpu/ops.py
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: "Failed to load CPU gemm_4bit_forward from kernels-community" not in record.getMessage()
    )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|bitsandbytes|accelerate)\b.*")


def flush() -> None:
    """Bring everything printed so far to its reader, before another process prints."""
    sys.stdout.flush()
    sys.stderr.flush()
