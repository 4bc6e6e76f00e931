"""The result of a check; no check is hidden by another that fails, or whose process is killed."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from signal import Signals
from typing import Any

from signllava_cli.console import quiet_libraries
from signllava_cli.errors import UserError, first_line, is_out_of_memory

WARNING = "warning: "  # what console.warning puts before its message
OUT_OF_MEMORY = "lower train.micro_batch_size or train.max_tokens_per_batch, or set train.gradient_checkpointing=true"


@dataclass(frozen=True)
class CheckResult:
    """`seen`: what the check measured. `problem`: what would be wrong or slow, and what to set; empty if nothing."""

    name: str
    seen: str
    problem: str = ""
    is_skipped: bool = False

    @property
    def state(self) -> str:
        return "PROBLEM" if self.problem else "skipped" if self.is_skipped else "ok"

    def to_dict(self) -> dict[str, str]:
        values = asdict(self)
        del values["is_skipped"]
        return {**values, "state": self.state}

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name}: {'; '.join(filter(None, (self.seen, self.problem)))}"


def guarded(name: str, check: Callable[[], tuple[str, str]], advice: str = "") -> CheckResult:
    """The result of `check`, which returns what it has seen and the problem; an exception is a problem too.

    What the check prints belongs to what it has seen, and a warning to the problem.

    Args:
        advice: what to do if the check fails with something else than a `UserError`.
    """
    output, seen, problem = io.StringIO(), "", ""
    try:
        with contextlib.redirect_stdout(output):
            seen, problem = check()
    except UserError as error:
        problem = str(error)
    except Exception as error:
        advice = OUT_OF_MEMORY if is_out_of_memory(error) else advice
        problem = "; ".join(filter(None, (f"{type(error).__name__}: {first_line(error)}", advice)))
    lines = [line.strip() for line in output.getvalue().splitlines()]
    warnings = [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
    printed = [line for line in lines if line and not line.startswith(WARNING)]
    return CheckResult(name, "; ".join(filter(None, [seen, *printed])), "; ".join(filter(None, [problem, *warnings])))


def run_in_process(group: str, checks: Callable[..., Iterator[CheckResult]], *args: Any) -> Iterator[CheckResult]:
    """The results of `checks(*args)` in a process of its own, each as it ends; its memory is then free again.

    A process that does not end by itself is one more problem, of the name `group`.
    """
    context = get_context("spawn")  # CUDA does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_results, args=(sender, checks, args), daemon=True)
    process.start()
    sender.close()
    with contextlib.suppress(EOFError):
        while True:
            yield receiver.recv()
    process.join()
    if process.exitcode:
        cause = Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
        yield CheckResult(group, "", f"its process ended by {cause} (out of memory?); later checks of it are missing")


def _send_results(sender: Connection, checks: Callable[..., Iterator[CheckResult]], args: tuple[Any, ...]) -> None:
    quiet_libraries()
    for result in checks(*args):
        sender.send(result)
