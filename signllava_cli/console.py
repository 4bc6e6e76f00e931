"""Messages, tables and progress bars; only rank 0 prints, as plain lines if stdout is not a terminal."""

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

from signllava_cli.errors import escape_unprintable
from signllava_cli.redaction import redact

PLAIN_LINE_SECONDS = 10.0
PLAIN_WIDTH = 160  # characters of a table in a file or pipe

# A launcher (torchrun, accelerate, DeepSpeed) sets the rank in the environment, before torch is imported.
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
    message = _printable(message)
    (all_ranks_console if all_ranks else stdout_console).print(message, style=style, markup=False)
    _print_to_log(time.strftime("%Y-%m-%d %H:%M:%S"), message)


def warning(message: str, all_ranks: bool = False) -> None:
    """Print a warning: something that the user should know, but that does not stop the command."""
    info(f"warning: {message}", style="yellow", all_ranks=all_ranks)


def error(message: str, *details: str) -> None:
    """Print an error on stderr, on any rank: one line, and those of `details`."""
    lines = map(_printable, (f"error: {message}", *details))
    stderr_console.print("\n".join(lines), style="bold red", markup=False)


@contextlib.contextmanager
def without_messages(is_quiet: bool = True) -> Iterator[None]:
    """Print only errors in the block if `is_quiet`; what stands on stdout is then, for instance, one JSON object."""
    was_quiet = stdout_console.quiet
    stdout_console.quiet = was_quiet or is_quiet
    try:
        yield
    finally:
        stdout_console.quiet = was_quiet


def _printable(text: str) -> str:
    """`text` with unprintable characters escaped and secrets redacted."""
    return redact(escape_unprintable(text))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is aligned left, the others right."""
    table = Table(title=Text(_printable(title)), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        # Text, because a name may look like rich's markup
        table.add_row(*(Text(_printable(str(cell))) for cell in row))
    stdout_console.print(table)
    _print_to_log(table)


def _print_to_log(*objects: Any) -> None:
    """Write a line to the run's log when one is open. When that fails, the log ends with a warning: the run goes on,
    since a full disk must not hide the error of what matters more.
    """
    global _log
    if _log is None:
        return
    try:
        _log.print(*objects, markup=False)
    except OSError as failure:
        file, _log = _log.file.name, None
        warning(f"{file} cannot be written: {failure.strerror or failure}; further messages are only printed here.")


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append everything printed inside the block to `path`, on rank 0."""
    global _log
    if not IS_MAIN_PROCESS:
        yield
        return
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed below)
    _log = Console(file=file, width=PLAIN_WIDTH, soft_wrap=True, highlight=False)
    try:
        yield
    finally:
        _log = None
        with contextlib.suppress(OSError):  # a line that could not be written, of which `_print_to_log` has warned
            file.close()


class ProgressBar:
    """A progress bar on a terminal; elsewhere a plain line every few seconds."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._start_time, self._done_at_start = time.monotonic(), done
        self._last_line_time = time.monotonic()
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
        """Count `by` more units as done; `note` is printed at the end of the line."""
        self.done += by
        if self._bar is not None:
            self._bar.update(self._task, advance=by, note=note)
            return
        now = time.monotonic()
        if now - self._last_line_time >= PLAIN_LINE_SECONDS or self.done >= self.total:
            self._last_line_time = now
            remaining = (self.total - self.done) / self.rate if self.rate else 0.0
            info(f"{self.label} {self.done}/{self.total}  ETA {remaining:.0f} s  {note}".rstrip())

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._done_at_start) / max(time.monotonic() - self._start_time, 1e-9)

    def stop(self) -> None:
        """Stop updating the bar; it stays on the screen."""
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[ProgressBar]:
    """Show a progress bar for `total` units of work, of which `done` are done already."""
    bar = ProgressBar(label, total, done)
    try:
        yield bar
    finally:
        bar.stop()


def quiet_libraries() -> None:
    """Silence messages of libraries that do not concern the user; our own code reports what matters."""
    # DeepSpeed logs at import that it found no GPU
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    # On a CPU with AVX-512-BF16 bitsandbytes looks for a faster kernel in the hub's kernels-community, and without it
    # warns "Failed to load CPU gemm_4bit_forward from kernels-community: ..."; its own kernel gives the same results:
    # https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/backends/cpu/ops.py
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: "Failed to load CPU gemm_4bit_forward from kernels-community" not in record.getMessage()
    )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else each lost connection prints a C++ stack trace
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|bitsandbytes|accelerate)\b.*")


def flush() -> None:
    """Flush stdout and stderr, so that the output of another process comes after it."""
    sys.stdout.flush()
    sys.stderr.flush()
