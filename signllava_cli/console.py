"""Messages, results and progress bars; only rank 0 prints, as plain lines if stdout is not a terminal.

Results (`print_line`, `print_table`, `print_document`) are what a command was asked for; messages (`info`,
`warning`, `error`, progress) say what it does. `--quiet` leaves out progress and `info`. `--json` prints each message
as one JSON object in one line on stderr, and results as JSON on stdout.
"""

import contextlib
import json
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

from signllava_cli.errors import RunStopped, UserError, escape_unprintable, first_line
from signllava_cli.redaction import redact

PLAIN_LINE_SECONDS = 10.0
PLAIN_WIDTH = 160  # characters of a table in a file or pipe

# A launcher (torchrun, accelerate, DeepSpeed) sets the rank in the environment, before torch is imported.
IS_MAIN_PROCESS = int(os.environ.get("RANK", "0")) == 0

stdout_console = Console(
    quiet=not IS_MAIN_PROCESS,
    soft_wrap=True,
    highlight=False,
    emoji=False,
    width=None if sys.stdout.isatty() else PLAIN_WIDTH,
)
all_ranks_console = Console(soft_wrap=True, highlight=False, emoji=False, width=stdout_console.width)
stderr_console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
_log: Console | None = None
_is_quiet = _is_json = False


def set_output(quiet: bool, as_json: bool) -> None:
    """Set what this process prints, from `--quiet` and `--json`."""
    global _is_quiet, _is_json
    _is_quiet, _is_json = quiet, as_json


def is_json() -> bool:
    """Whether results are printed as JSON."""
    return _is_json


def output_options() -> list[str]:
    """The options with which another command prints as this one."""
    return ["--quiet"] * _is_quiet + ["--json"] * _is_json


def info(message: str, style: str | None = None) -> None:
    """Print a message in one line, and write it to the run's log when one is open."""
    message = _printable(message)
    _print_to_log(_timestamp(), message)
    if _is_json:
        _print_json_message("info", False, message=message)
    elif not _is_quiet:
        stdout_console.print(message, style=style, markup=False)


def warning(message: str, *details: str, all_ranks: bool = False) -> None:
    """Print a warning, something that the user should know, but that does not stop the command; `details`: lines."""
    text = "\n".join(map(_printable, (message, *details)))
    _print_to_log(_timestamp(), f"warning: {text}")
    if _is_json:
        _print_json_message("warning", all_ranks, message=text)
    else:
        _console(all_ranks).print(f"warning: {text}", style="yellow", markup=False)


def error(message: str, *details: str) -> None:
    """Print an error on stderr, on any rank: one line, and those of `details`."""
    text = "\n".join(map(_printable, (message, *details)))
    _print_to_log(_timestamp(), f"error: {text}")
    if _is_json:
        _print_json_message("error", all_ranks=True, message=text)
    else:
        stderr_console.print(f"error: {text}", style="bold red", markup=False)


def print_line(text: str, style: str | None = None, all_ranks: bool = False) -> None:
    """Print a line of the result, and write it to the run's log when one is open."""
    text = _printable(text)
    _print_to_log(_timestamp(), text)
    if _is_json:
        _print_json(_console(all_ranks), {"type": "line", "text": text})
    else:
        _console(all_ranks).print(text, style=style, markup=False)


def print_document(document: Any) -> None:
    """Print the whole result as one JSON value."""
    _print_json(stdout_console, document, indent=2)


def print_text(text: str) -> None:
    """Print a text that is the whole result, such as a file, as it is; with `--json` as a document."""
    if _is_json:
        print_document({"text": text})
    else:
        sys.stdout.write(text)


def _print_json_message(kind: str, all_ranks: bool, **fields: Any) -> None:
    is_shown = fields.get("message") != "" and not (_is_quiet and kind in ("info", "progress"))
    if is_shown and (IS_MAIN_PROCESS or all_ranks):
        _print_json(stderr_console, {"type": kind, **fields})


def _print_json(console: Console, value: Any, indent: int | None = None) -> None:
    console.out(redact(json.dumps(value, ensure_ascii=False, indent=indent, default=str)), highlight=False)


def _console(all_ranks: bool) -> Console:
    return all_ranks_console if all_ranks else stdout_console


def _timestamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _printable(text: str) -> str:
    """`text` with unprintable characters escaped and secrets redacted."""
    return redact(escape_unprintable(text))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table of the result; the first column is aligned left, the others right."""
    table = Table(title=Text(_printable(title)), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        # Text, because a name may look like rich's markup
        table.add_row(*(Text(_printable(str(cell))) for cell in row))
    _print_to_log(table)
    if _is_json:
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        _print_json(stdout_console, {"type": "table", "title": title, "rows": named})
    else:
        stdout_console.print(table)


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
    """Append everything printed inside the block to `path`, and the error that ends it, on rank 0."""
    global _log
    if not IS_MAIN_PROCESS:
        yield
        return
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed below)
    _log = Console(file=file, width=PLAIN_WIDTH, soft_wrap=True, highlight=False)
    try:
        yield
    except Exception as end:
        _print_to_log(_timestamp(), _describe_end(end))
        raise
    finally:
        _log = None
        with contextlib.suppress(OSError):  # a line that could not be written, of which `_print_to_log` has warned
            file.close()


def _describe_end(end: Exception) -> str:
    if isinstance(end, RunStopped):
        return _printable(str(end))
    lines = end.lines if isinstance(end, UserError) else [f"{type(end).__name__}: {first_line(end)}"]
    return "\n".join(map(_printable, (f"error: {lines[0]}", *lines[1:])))


def _is_interactive() -> bool:
    """Whether the user sees progress as it moves."""
    return stdout_console.is_terminal and IS_MAIN_PROCESS and not (_is_quiet or _is_json)


class ProgressBar:
    """A progress bar on a terminal; elsewhere a plain line every few seconds."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._start_time, self._done_at_start = time.monotonic(), done
        self._last_line_time = time.monotonic()
        self._bar: Progress | None = None
        if _is_interactive():
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
            if _is_json:
                _print_json_message("progress", False, label=self.label, done=self.done, total=self.total, note=note)
                return
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


@contextlib.contextmanager
def loading_packages() -> Iterator[None]:
    """Show on a terminal that torch and transformers are imported, which takes seconds; no trace of it stays."""
    with contextlib.ExitStack() as stack:
        if _is_interactive():
            stack.enter_context(stdout_console.status("loading torch and transformers"))
        yield


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
