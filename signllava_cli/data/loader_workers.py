"""The worker processes of torch's DataLoader: signals, and what would make a run wait for a batch for ever."""

import contextlib
import multiprocessing.queues
import multiprocessing.util
import os
import signal
import tempfile
from collections.abc import Iterator

from signllava_cli.console import warning
from signllava_cli.errors import UserError, first_line

SHORT_FOLDER = "/tmp"
MAX_FOLDER_BYTES = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # 107: of the path of a socket (unix(7))


def prepare_workers() -> None:
    """Let the sockets, through which workers send tensors, be in /tmp if the temporary folder has a long name.

    Call this before workers start. Python 3.13 does so itself.

    Raises:
        UserError: /tmp cannot be written.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES:
        return
    previous, tempfile.tempdir = tempfile.tempdir, SHORT_FOLDER
    try:
        multiprocessing.util.get_temp_dir()  # made once in a process
    except OSError as error:
        raise UserError(
            f"TMPDIR={folder} is too long for the sockets of data.num_workers, and {SHORT_FOLDER} cannot be written "
            f"({error.strerror}); set a TMPDIR of at most {MAX_FOLDER_BYTES} characters."
        ) from None
    finally:
        tempfile.tempdir = previous


def init_worker(worker: int) -> None:
    """Set up a worker process; torch's `worker_init_fn`.

    It ignores signals that are sent to its whole process group: the main process handles them. It still ends with the
    run: the loader stops it, and its watchdog detects that the parent has ended.

    A batch that cannot be sent ends it. By itself, multiprocessing prints a traceback and drops the batch.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> None:
    warning(f"a worker process that reads clips cannot send a batch: {first_line(error)}", all_ranks=True)
    os._exit(1)


@contextlib.contextmanager
def report_killed_workers() -> Iterator[None]:
    """Turn torch's error about a worker that was killed into a UserError.

    A signal handler of torch raises it, so it can come from any line of the training loop.
    """
    try:
        yield
    except RuntimeError as failure:
        message = first_line(failure)
        if not message.startswith("DataLoader worker"):
            raise
        raise UserError(
            f"A worker process that reads clips was ended, perhaps because memory or /dev/shm ran out ({message}): "
            "lower data.num_workers. Run the same command again to resume."
        ) from None
