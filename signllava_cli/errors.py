"""Errors that are not bugs, and their exit codes.

Exit codes: 0 done; 1 a bug (traceback), or a lost machine or rank (one line); 2 the user can fix it; 75 stopped with
its state saved, run the same command again (BSD's EX_TEMPFAIL, which the SLURM scripts test for); 130 interrupted;
128 + N a rank was ended by signal N.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_NAMES = 5  # names listed in a message
MAX_LINE = 4000  # characters of a line of a message


class UserError(Exception):
    """An error that the user can fix: the message says what happened, where, and what to do.

    `args`: the message, and further lines if the error lists several problems. In `lines` and `str()`, a line break
    of a file name, or another unprintable character, is escaped, and the middle of a very long line is omitted.
    """

    exit_code = 2

    @property
    def lines(self) -> list[str]:
        """The lines to print."""
        return [_shorten(escape_unprintable(line)) for line in self.args]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class RunStopped(Exception):
    """The run was stopped before its end by a signal or a limit; its state is saved."""

    exit_code = 75


def require_extra(extra: str, feature: str, *modules: str) -> None:
    """Check that `modules`, which `feature` needs and `pip install "signllava[extra]"` installs, are installed.

    Raises:
        UserError: a module is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(
            f"{feature} needs packages that are not installed ({', '.join(missing)}): "
            f'pip install "signllava[{extra}]"'
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on the CPU or a GPU, failed to allocate memory."""
    is_torch_error = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_torch_error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def format_count(count: int, singular: str, plural: str | None = None) -> str:
    """`count` and what it counts, for a message.

    >>> format_count(1, "clip"), format_count(2, "clip"), format_count(0, "clip has", "clips have")
    ('1 clip', '2 clips', '0 clips have')

    Args:
        plural: `singular` with an s by default.
    """
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def summarize_names(names: Iterable[str], count: int | None = None) -> str:
    """The first `MAX_NAMES` of `names` for a message, and the number of the others.

    Args:
        count: the number of all names, if `names` holds only some of them.
    """
    escaped = [escape_unprintable(name) for name in names]
    summary = ", ".join(escaped[:MAX_NAMES])
    num_omitted = (len(escaped) if count is None else count) - MAX_NAMES
    return f"{summary} and {num_omitted} more" if num_omitted > 0 else summary


def escape_unprintable(text: str) -> str:
    """`text` with unprintable characters, such as terminal control codes, escaped as in Python literals."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _shorten(line: str) -> str:
    """`line` without its middle if it is longer than `MAX_LINE`."""
    half = MAX_LINE // 2
    return line if len(line) <= MAX_LINE else f"{line[:half]} [...] {line[-half:]}"


def first_validation_error(error: "ValidationError") -> str:
    """The key and the message of the first error that pydantic has found."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))} {first['msg']}"
