"""What can go wrong that is not a bug, and the exit code that each leaves behind.

Exit codes: 0 done; 1 a bug (traceback); 2 the user can fix it; 75 stopped with its state saved, run the
same command again (BSD's EX_TEMPFAIL, which SLURM's requeue scripts test for); 130 interrupted.
"""

from collections.abc import Iterable
from importlib.util import find_spec

MAX_NAMES = 5


class UserError(Exception):
    """The person at the terminal can fix this: the message says what, where, and the fix."""

    exit_code = 2


class RunStopped(Exception):
    """The run stopped before its end, on request, with its state saved."""

    exit_code = 75


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Check that `modules` can be imported, which `pip install "signllava[extra]"` installs; `what` needs them.

    Raises:
        UserError: one of them is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(
            f'{what} needs packages that are not installed ({", ".join(missing)}): pip install "signllava[{extra}]"'
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on the CPU or a GPU, could not have the memory that it asked for."""
    said = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def summarize_names(names: Iterable[str], count: int | None = None) -> str:
    """The first few of `names` for a message, and how many more there are; `count` is their number, if more."""
    listed = [escape_unprintable(name) for name in names]
    shown = ", ".join(listed[:MAX_NAMES])
    hidden = (len(listed) if count is None else count) - MAX_NAMES
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def escape_unprintable(text: str) -> str:
    """`text` without what could steer a terminal or cannot be written: escaped, as Python does."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
