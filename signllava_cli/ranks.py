"""Run accelerate's launcher, and turn the exit codes of its ranks into one exit code of the run."""

import logging
import re
import signal
import subprocess
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait

from signllava_cli.console import error
from signllava_cli.errors import RunStopped, UserError, first_line
from signllava_cli.preemption import LAUNCHER_THREAD
from signllava_cli.processes import INTERRUPTED, POLL_SECONDS, ReceivedSignals, forward_to_new_children


def run_ranks(arguments: Namespace, received: ReceivedSignals) -> int:
    """Run accelerate's launcher until its ranks have ended, and return the exit code of the run.

    The launcher runs in a thread of its own, for two reasons. In a thread, torchrun's agent cannot install signal
    handlers, which would kill ranks that need more than 30 seconds to save. And the main thread can handle signals
    while the agent waits for other machines.

    Args:
        arguments: the arguments of accelerate's launcher.
        received: the signals that `forward_signals` has received; the list grows while the ranks run.

    Raises:
        UserError: accelerate cannot launch this.
        RunStopped: a signal arrived before the ranks were started or could handle it.
    """
    from accelerate.commands.launch import launch_command
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.disable(logging.ERROR)  # in the launcher only: `_exit_code` reports in one line what torchrun would log
    launched: Future[None] = Future()

    def launch() -> None:
        try:
            launched.set_result(launch_command(arguments))
        except BaseException as failure:
            launched.set_exception(failure)

    threading.Thread(target=launch, name=LAUNCHER_THREAD, daemon=True).start()
    try:
        _wait(launched, received)
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        return _exit_code(codes, received)
    except subprocess.CalledProcessError as failed:  # raised by a profile for one process
        return _exit_code({0: failed.returncode}, received)
    except (RendezvousError, DistError) as failure:
        raise UserError(_rendezvous_message(arguments, failure)) from None
    except (ValueError, ImportError, ConnectionError) as failure:
        raise UserError(f"{arguments.config_file} cannot be launched: {failure}") from None
    return 0


def _wait(launched: "Future[None]", received: ReceivedSignals) -> None:
    """Wait until the launcher has ended. Children that start after a signal get it too.

    The launcher's first child may be no rank but nvidia-smi, and the ranks start one after the other.
    """
    while not launched.done():
        wait([launched], timeout=POLL_SECONDS)
        forward_to_new_children(received)
    launched.result()


def _rendezvous_message(arguments: Namespace, failure: Exception) -> str:
    """Why the launchers of all machines did not find each other."""
    address, rank = f"{arguments.main_process_ip}:{arguments.main_process_port}", arguments.machine_rank
    seconds = f"{arguments.rdzv_conf.removeprefix('timeout=')} s (launch.rendezvous_timeout)"
    if joined := re.search(r"(\d+)/(\d+) clients joined", str(failure)):
        return (
            f"machine 0 has waited {seconds} at {address}: {joined[1]} of {joined[2]} machines joined, this one "
            "included. On each other machine run the same command with its own --machine-rank, and check that it "
            f"reaches {address} (--main-process-ip, --main-process-port, firewall)."
        )
    cause = re.search(r"errno: \d+ - ([^)]*)", str(failure))
    return (
        f"machine {rank} could not connect to machine 0 at {address} within {seconds}: "
        f"{cause[1] if cause else first_line(failure)}. Start the command on machine 0 too, and check "
        "--main-process-ip, --main-process-port and the firewalls."
    )


def _exit_code(codes: Mapping[int, int], received: Sequence[signal.Signals]) -> int:
    """The exit code of a run, from the exit code of each failed rank (-N: ended by signal N).

    When one rank fails, torchrun ends the others by SIGTERM, and a rank that lost its connection to another rank
    fails too. So the codes are tested in the order of how much they explain.
    """
    for code in (UserError.exit_code, RunStopped.exit_code, INTERRUPTED):
        if code in codes.values():
            return code
    if signal.SIGINT in received:
        return INTERRUPTED
    if received and all(code < 0 for code in codes.values()):  # the ranks had no signal handlers yet
        raise RunStopped(f"stopped by {received[0].name} before the first step. Run the same command again.")
    by_signal = {rank: signal.Signals(-code) for rank, code in codes.items() if code < 0}
    killed = {rank: number for rank, number in by_signal.items() if number != signal.SIGTERM}
    if killed:
        rank, number = min(killed.items())
        reason = " (out of memory?)" if number == signal.SIGKILL else ""
        error(f"rank {rank} was ended by {number.name}{reason}; run the same command again to resume.")
        return 128 + number
    return next((code for code in codes.values() if code > 0), 128 + signal.SIGTERM)
