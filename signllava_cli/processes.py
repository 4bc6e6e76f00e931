"""Processes that this one starts: workers end with their parent, commands receive its signals.

Fork or spawn: HDF5 works after a fork as long as each process opens its own files (h5py takes its lock before a fork
and releases it in the child). torch does not: its OpenMP threads hang in a child when they have run in the parent. So
workers that use only HDF5 and NumPy are forked (`submit_all`); with spawn, the script that calls our API would run a
second time in each worker. `prepare pack`, whose workers read bfloat16 with torch, spawns its workers.
tests/prepare/pack/test_workers.py tests both.
"""

import contextlib
import math
import mmap
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from signllava_cli.console import flush, info, output_options
from signllava_cli.errors import RunStopped, UserError, escape_unprintable

Result = TypeVar("Result")

INTERRUPTED = 130
POLL_SECONDS = 0.2
EXIT_SECONDS = 1.0  # for a process that has sent its result, before it is killed
MAX_CPU_SECONDS = 120.0  # to read one file, or one clip of it
READING_BYTES, READING_FACTOR = 2**30, 64  # a file of N bytes may take READING_BYTES + READING_FACTOR * N to be read
MAX_PATH_BYTES = 4096  # of Linux
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Received signal -> the signal for children. Ctrl-C becomes SIGTERM: the terminal has sent SIGINT to the children
# already, and a second SIGINT would make them exit without saving.
FORWARDED_AS = {signal.SIGTERM: signal.SIGTERM, signal.SIGUSR1: signal.SIGUSR1, signal.SIGINT: signal.SIGTERM}


class StopWorker(Exception):
    """The parent has set the stop flag of its workers."""


def cpu_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def submit_all(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[dict[Future[Result], tuple[Any, ...]]]:
    """Call `function(*task)` for each of `tasks` in forked workers, and yield the futures, each with its task.

    Start a progress bar inside the block: workers are forked before the bar has its thread, and while signals are
    blocked. When the block fails, tasks that have not started are canceled. `function` must not use torch (see the
    module's docstring).
    """
    count = min(workers, len(tasks))
    with ProcessPoolExecutor(count, get_context("fork"), initializer=init_worker, initargs=(os.getpid(),)) as pool:
        with block_signals():
            futures = {pool.submit(function, *task): task for task in tasks}
        try:
            yield futures
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Block signals inside the block, also in the processes started there, which unblock them in `init_worker`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def init_worker(parent_pid: int) -> None:
    """Ignore signals, which the parent handles (a terminal sends them to the whole group); exit when it is killed.

    A killed parent cannot stop its workers, and the workers of a pool would wait for it forever.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def watch_parent() -> None:
        while os.getppid() == parent_pid:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


# Called with a file before it is read, and optionally with its name in messages, by default its path.
BeforeFile = Callable[..., None]


class ReadCrash(UserError):
    """Reading a file ended the process by a signal, or with this exit `code`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadCrash, (self.args[0], self.code)


def call_in_child(function: Callable[..., Result], *args: Any) -> Result:
    """`function(before_file, *args)` in a forked process: a library may crash or hang on a damaged file.

    `function` must call `before_file` with each file before it reads it, or a part of it, and must not use torch (see
    the module's docstring).

    Raises:
        ReadCrash: the process was ended by a signal, or read for more than `MAX_CPU_SECONDS`; names the file.
    """
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    current_file = mmap.mmap(-1, MAX_PATH_BYTES)
    process = context.Process(target=_call, args=(os.getpid(), sending, current_file, function, args), daemon=True)
    with block_signals():
        process.start()
    sending.close()
    try:
        result, error = receiving.recv()
        process.join(EXIT_SECONDS)
    except EOFError:
        process.join()
        file = os.fsdecode(current_file[:].rstrip(b"\0"))
        code = process.exitcode or 0
        raise ReadCrash(
            f"{escape_unprintable(file) or 'A file'}: {describe_crash(code)}; replace or remove it.", code
        ) from None
    finally:
        receiving.close()
        process.kill()
        process.join()
    if error is not None:
        raise error
    returned: Result = result
    return returned


def _call(
    parent: int, connection: Any, current_file: mmap.mmap, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    def before_file(file: Path, name: str | None = None) -> None:
        current_file[:] = os.fsencode(name or file)[:MAX_PATH_BYTES].ljust(MAX_PATH_BYTES, b"\0")
        limit_reading(file)

    init_worker(parent)
    message: tuple[Any, Exception | None]
    try:
        message = function(before_file, *args), None
    except Exception as error:
        if not isinstance(error, UserError):
            error.add_note(traceback.format_exc())
        message = None, error
    connection.send(message)


def describe_crash(code: int) -> str:
    """How reading a file ended a process with this exit code, for a message."""
    if -code == signal.SIGKILL:
        return "the process that read it was killed, perhaps because memory ran out"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    reason = f"takes more than {MAX_CPU_SECONDS:g} s" if -code == signal.SIGXCPU else f"crashes a process ({name})"
    return f"it is damaged: reading it {reason}"


def limit_reading(file: Path) -> None:
    """Limit the CPU time of this process, as `limit_cpu_time`, and its memory for reading `file`.

    A damaged object of an HDF5 file can let the library allocate any number of bytes.
    """
    limit_cpu_time()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    size = file.stat().st_size if file.is_file() else 0
    _set_limit(resource.RLIMIT_AS, used + READING_BYTES + READING_FACTOR * size)


def limit_cpu_time() -> None:
    """Let SIGXCPU end this process unless this function is called again within `MAX_CPU_SECONDS` of CPU time."""
    _set_limit(resource.RLIMIT_CPU, math.ceil(sum(os.times()[:2]) + MAX_CPU_SECONDS))


def _set_limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def run_command(command: Sequence[str | Path], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command as `subprocess.run` does; signals are forwarded to it, and its end is awaited.

    Raises:
        RunStopped: the command stopped with its state saved, or it ended after a signal other than Ctrl-C.
        KeyboardInterrupt: the command was interrupted.
    """
    with forward_signals() as received:
        process = subprocess.Popen(command, text=True, **options)
        out, err = process.communicate()
    code = process.returncode
    if code == INTERRUPTED or (signal.SIGINT in received and code != RunStopped.exit_code):
        raise KeyboardInterrupt
    if received or code == RunStopped.exit_code:
        cause = f"stopped by {received[0].name}" if received else "stopped"
        raise RunStopped(f"{cause}. Run the same command again.")
    return subprocess.CompletedProcess(process.args, code, out, err)


def repeat_option(option: str, values: Iterable[str]) -> list[str]:
    """The arguments that give `option` once with each value."""
    return [word for value in values for word in (option, value)]


def run_signllava(words: Sequence[str], resume_hint: str = "run the same command again to continue.") -> None:
    """Print a command of `signllava` and run it in a process of its own.

    Raises:
        UserError: the command failed; it has printed its own message before.
        RunStopped: a signal arrived; the command has saved its state.
    """
    command = shlex.join(["signllava", *words])
    info("")
    info(f"$ {command}", style="bold cyan")
    flush()
    try:
        code = run_command([sys.executable, "-m", "signllava_cli", *words, *output_options()]).returncode
    except RunStopped as stop:
        raise RunStopped(f"stopped in `{command}`; {resume_hint}") from stop
    if code != 0:
        raise UserError(f"`{command}` ended with exit code {code}; {resume_hint}")


class ReceivedSignals(list[signal.Signals]):
    """The signals that a process has received and forwarded; `informed`: the ids of the children that got one."""

    def __init__(self) -> None:
        super().__init__()
        self.informed: set[int] = set()


@contextlib.contextmanager
def forward_signals() -> Iterator[ReceivedSignals]:
    """Forward signals to the children of this process inside the block, and yield the received signals.

    A second Ctrl-C kills the children.

    Raises:
        RunStopped: a signal arrived while there was no child.
    """
    received = ReceivedSignals()

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        children = psutil.Process().children()
        if name == signal.SIGINT and (name in received or not children):
            kill_families(children)
            raise KeyboardInterrupt
        if not children:
            raise RunStopped(f"stopped by {name.name} before the first step. Run the same command again.")
        received.append(name)
        for child in children:
            received.informed.add(child.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(FORWARDED_AS[name])
        if name == signal.SIGINT:
            info("Ctrl-C: waiting until the state is saved. Press Ctrl-C again to kill the running processes.")

    previous_handlers = {number: signal.signal(number, handle) for number in FORWARDED_AS}
    try:
        yield received
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def forward_to_new_children(received: ReceivedSignals) -> None:
    """Forward the first of the `received` signals to the children that have got none."""
    for child in psutil.Process().children() if received else ():
        if child.pid not in received.informed:
            received.informed.add(child.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(FORWARDED_AS[received[0]])


def kill_families(children: list[psutil.Process]) -> None:
    """Kill `children` and their descendants."""
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (child, *child.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
