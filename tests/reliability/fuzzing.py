"""Runs a reader of the package on many bad inputs: it must return or raise a `UserError` of one line, soon and
without allocating much more than the input holds.

Inputs are a function of their number alone, so a failure is repeated by its number; what made a reader fail is
written to `cases/READER/`, which `replay` tries in each later run. `SIGNLLAVA_FUZZ_INPUTS=10` makes ten times as many
inputs.
"""

import hashlib
import json
import mmap
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from signllava_cli.errors import UserError

CASES = Path(__file__).parent / "cases"
FACTOR = float(os.environ.get("SIGNLLAVA_FUZZ_INPUTS", "1"))
MAX_FAILURES = 20  # of different kinds, that one run collects
WALL_SECONDS = 120.0  # without progress: the reader sleeps or hangs in C code
STARTING = 1 << 62  # instead of the number of an input, while the child imports modules
PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Reader:
    """A reader of the package.

    `read` gets the path of a file `file_name` with the input. `seeds`: the contents of valid files. `seconds`: CPU
    time for one input. `memory`: bytes that may be allocated, in addition to `memory_factor` times the input's size.
    """

    name: str
    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]
    file_name: str = "input.json"
    seconds: float = 10.0
    memory: int = 128 << 20
    memory_factor: int = 40


@dataclass(frozen=True)
class Failure:
    """What a reader did wrong: `kind` is the same for failures of one cause."""

    reader: str
    number: int
    kind: str
    details: str
    case: str = ""


class TooSlow(BaseException):
    """The reader exceeded its CPU time. Not an `Exception`, which a reader might handle."""


def fuzz_reader(reader: Reader, make_input: Callable[[int], bytes], number: int, folder: Path) -> int:
    """Run `reader` on the inputs `make_input(0)` to `make_input(number - 1)`; the number that was tried.

    Raises:
        AssertionError: names each kind of failure, and the file with its input.
    """
    failures: dict[str, Failure] = {}
    first = 0
    while first < number and len(failures) < MAX_FAILURES:
        first = _run_child(reader, make_input, range(first, number), folder, failures)
    if failures:
        texts = [
            f"{failure.kind} (input {failure.number}, {failure.case})\n{failure.details}"
            for failure in failures.values()
        ]
        raise AssertionError(f"{reader.name}: {len(failures)} kinds of failures\n\n" + "\n".join(texts))
    return number


def scaled(number: int) -> int:
    """`number` inputs, times the factor in the environment."""
    return max(1, round(number * FACTOR))


def replay(reader: Reader, folder: Path) -> int:
    """Run `reader` on the inputs that once made it fail; their number."""
    files = sorted((CASES / reader.name).glob("*"))
    return fuzz_reader(reader, lambda number: files[number].read_bytes(), len(files), folder)


def _run_child(
    reader: Reader,
    make_input: Callable[[int], bytes],
    numbers: range,
    folder: Path,
    failures: dict[str, Failure],
) -> int:
    """Try `numbers` in a child process, add its failures, and return the number of the next input to try."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = mmap.mmap(-1, 8)  # the number of the current input
    shared[:8] = STARTING.to_bytes(8, "little")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            _child(reader, make_input, numbers, folder, shared, writing, set(failures))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    reports, is_stuck = _receive(reading, shared, child)
    _, status = os.waitpid(child, 0)
    current = int.from_bytes(shared[:8], "little")
    for line in reports.splitlines():
        failure = Failure(**json.loads(line))
        failures.setdefault(failure.kind, failure)
    if status == 0:
        return numbers.stop
    what = f"no progress in {WALL_SECONDS:.0f} s" if is_stuck else f"the process died (status {status})"
    case = write_case(reader, make_input(current)) if current < numbers.stop else ""
    failures.setdefault(what, Failure(reader.name, current, what, "", case))
    return current + 1


def _receive(reading: int, shared: mmap.mmap, child: int) -> tuple[str, bool]:
    """What the child reports until it ends; it is killed when it makes no progress."""
    received, last, since = b"", bytes(shared[:8]), time.monotonic()
    is_stuck = False
    while True:
        if select.select([reading], [], [], 1.0)[0]:
            block = os.read(reading, 1 << 16)
            if not block:
                os.close(reading)
                return received.decode(), is_stuck
            received += block
        elif bytes(shared[:8]) != last or last == STARTING.to_bytes(8, "little"):
            last, since = bytes(shared[:8]), time.monotonic()
        elif not is_stuck and time.monotonic() - since > WALL_SECONDS:
            os.kill(child, signal.SIGKILL)
            is_stuck = True


def _child(
    reader: Reader,
    make_input: Callable[[int], bytes],
    numbers: range,
    folder: Path,
    shared: mmap.mmap,
    writing: int,
    known: set[str],
) -> None:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (strict: text that no terminal can show fails)
    if reader.seeds:  # imports modules, which need memory
        with suppress(Exception):
            reader.read(write_input(reader, reader.seeds[0], folder))
    for number in numbers:
        shared[:8] = number.to_bytes(8, "little")
        content = make_input(number)
        problem = try_input(reader, content, folder)
        if problem is not None and problem[0] not in known:
            known.add(problem[0])
            failure = Failure(reader.name, number, *problem, write_case(reader, content))
            os.write(writing, (json.dumps(asdict(failure)) + "\n").encode())
            if len(known) >= MAX_FAILURES:
                return
    shared[:8] = numbers.stop.to_bytes(8, "little")


def try_input(reader: Reader, content: bytes, folder: Path) -> tuple[str, str] | None:
    """The kind and the details of what went wrong, if anything did."""
    file = write_input(reader, content, folder)
    try:
        with _limits(reader, len(content)):
            reader.read(file)
    except UserError as error:
        return check_message(error.lines)
    except OSError as error:
        return None if error.filename is not None else _describe(error, "OSError without a file")
    except TooSlow as error:
        return _describe(error, f"more than {reader.seconds:g} s of CPU time")
    except Exception as error:
        return _describe(error, type(error).__name__)
    return None


def write_input(reader: Reader, content: bytes, folder: Path) -> Path:
    file = folder / reader.file_name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def check_message(lines: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the lines of a `UserError`, if anything."""
    if not lines or not lines[0].strip():
        return "an error without a message", ""
    if any(not line.isprintable() for line in lines):
        return "a message with unprintable characters", repr(lines)
    if any(len(line) > 5_000 for line in lines):
        return "a very long message", f"of {max(map(len, lines))} characters"
    return None


def _describe(error: BaseException, name: str) -> tuple[str, str]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "signllava_cli" in frame.filename] or frames
    text = traceback.format_exception(type(error), error, error.__traceback__)
    where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    return f"{name} in {where}", "".join(text)[-3000:]


@contextmanager
def _limits(reader: Reader, size: int) -> Iterator[None]:
    """Limit the CPU time and the address space of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    previous = signal.signal(signal.SIGPROF, _raise_too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (used + reader.memory + reader.memory_factor * size, hard))
    signal.setitimer(signal.ITIMER_PROF, reader.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, previous)


def _raise_too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def write_case(reader: Reader, content: bytes) -> str:
    """Write `content` as a case for `replay`, and return its path."""
    file = CASES / reader.name / hashlib.sha256(content).hexdigest()[:12]
    file.parent.mkdir(parents=True, exist_ok=True)
    known = [other for other in file.parent.iterdir() if other.read_bytes() == content]
    if not known:
        file.write_bytes(content)
    return str((known or [file])[0])
