"""The ranks as their launcher sees them: their ends become one exit code."""

import logging
import signal
import subprocess
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from signllava_cli.console import error
from signllava_cli.errors import RunStopped, UserError
from signllava_cli.preemption import LAUNCHER_THREAD
from signllava_cli.processes import INTERRUPTED


def run_ranks(arguments: Namespace, passed_on: Sequence[signal.Signals]) -> int:
    """Run accelerate's launcher to the end of its ranks; the exit code of the run comes back.

    The launcher works in a thread of its own. There torchrun's agent cannot take the signals, with which it would
    kill ranks that need more than 30 seconds to save; and this thread can, also while the agent waits for other
    machines.

    Args:
        arguments: what accelerate's launcher takes.
        passed_on: the signals that `signals_passed_on` has passed on.

    Raises:
        UserError: accelerate cannot launch this.
        Stopped: a signal came before there were ranks, or before they had begun.
    """
    from accelerate.commands.launch import launch_command
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.disable(logging.ERROR)  # in the launcher alone: what torchrun logs of each end is told below, in one line
    launched: Future[None] = Future()

    def launch() -> None:
        try:
            launched.set_result(launch_command(arguments))
        except BaseException as failure:
            launched.set_exception(failure)

    threading.Thread(target=launch, name=LAUNCHER_THREAD, daemon=True).start()
    try:
        launched.result()
    except ChildFailedError as failed:
        ends = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        return _exit_code(ends, passed_on)
    except subprocess.CalledProcessError as failed:  # of a profile for one process
        return _exit_code({0: failed.returncode}, passed_on)
    except (RendezvousError, DistError) as fault:
        address = f"{arguments.main_process_ip}:{arguments.main_process_port}"
        raise UserError(f"The machines did not find each other at {address}: {fault}") from None
    except (ValueError, ImportError, ConnectionError) as fault:
        raise UserError(f"{arguments.config_file} cannot be launched: {fault}") from None
    return 0


def _exit_code(ends: Mapping[int, int], passed_on: Sequence[signal.Signals]) -> int:
    """The exit code of a run whose ranks ended with these (-N: by signal N).

    torchrun ends the other ranks by SIGTERM as soon as one has failed, and a rank fails that has lost another: the
    first code in this list that is there says what happened.
    """
    for code in (UserError.exit_code, RunStopped.exit_code, INTERRUPTED):
        if code in ends.values():
            return code
    if signal.SIGINT in passed_on:
        return INTERRUPTED
    if passed_on and all(end < 0 for end in ends.values()):  # they had not begun to listen
        raise RunStopped(f"stopped by {passed_on[0].name}; nothing was to be saved. Run the same command again.")
    by_signal = {rank: signal.Signals(-end) for rank, end in ends.items() if end < 0}
    killed = {rank: number for rank, number in by_signal.items() if number != signal.SIGTERM}
    if killed:
        rank, number = min(killed.items())
        reason = " (out of memory?)" if number == signal.SIGKILL else ""
        error(f"rank {rank} was ended by {number.name}{reason}; the same command goes on from the newest checkpoint.")
        return 128 + number
    return next((end for end in ends.values() if end > 0), 128 + signal.SIGTERM)
