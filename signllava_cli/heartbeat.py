"""Machines of a launch watch each other: without this, ranks wait hours for a machine that is gone.

A killed process closes its connections, and the ranks at the other ends notice it at once. A machine that has lost
power or network closes nothing. So the first rank of each machine counts up a number in torch's store, which the
launcher of machine 0 keeps, and ends with an error when the number of another machine stands still, or when the store
no longer answers.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from signllava_cli.console import error, flush
from signllava_cli.errors import UserError, first_line
from signllava_cli.network import GLOO_INTERFACE, Machines, set_gloo_interface
from signllava_cli.recipe import Launch

Joined = TypeVar("Joined")

ENDED = b"ended"  # instead of the number of a machine that no longer takes part
LOST = 1  # exit code of a rank that has lost another one
BEATS = 20  # in the time without an answer after which a machine is lost


@contextlib.contextmanager
def watch_machines(config: Launch, join: Callable[[], Joined]) -> Iterator[Joined]:
    """Call `join`, which connects the ranks to each other, and watch the other machines until the end of the block.

    Yields what `join` returns.

    Raises:
        UserError: the ranks could not connect to each other.
    """
    machines = Machines.of_launch()
    if machines is None:
        yield join()
        return
    set_gloo_interface(machines)
    if os.environ["LOCAL_RANK"] != "0":
        yield _connect(join, machines)
        return
    heartbeat = Heartbeat(machines, config.rendezvous_timeout, config.heartbeat_timeout)
    heartbeat.start()
    try:
        joined = _connect(join, machines)
        heartbeat.is_connected = True
        yield joined
    finally:
        heartbeat.end()


def _connect(join: Callable[[], Joined], machines: Machines) -> Joined:
    from torch.distributed import DistError, barrier

    try:
        joined = join()
        barrier()  # NCCL connects at the first collective operation
    except RuntimeError as failure:
        if not isinstance(failure, DistError) and "connectFullMesh" not in str(failure):
            raise
        raise UserError(
            f"machine {machines.rank} could not connect to the other machines: {first_line(failure)}. "
            f"{_advice(machines)}"
        ) from None
    return joined


def _advice(machines: Machines) -> str:
    interface = os.environ.get(GLOO_INTERFACE)
    used = f"machine {machines.rank} uses the network interface {interface} on the CPU; " if interface else ""
    return (
        f"Let the firewalls pass all ports between the machines ({used}{GLOO_INTERFACE} and NCCL_SOCKET_IFNAME set "
        "another interface)."
    )


class Heartbeat:
    """Counts up the number of this machine and watches those of the others, in two threads.

    One thread talks to the store, which may block it for ever; the other one measures the time.

    Args:
        start_seconds: the time that all machines have to start.
        lost_seconds: the time without an answer after which a machine is lost; also the time to connect in.
    """

    def __init__(self, machines: Machines, start_seconds: float, lost_seconds: float) -> None:
        self.is_connected = False
        self._machines = machines
        self._start_seconds, self._lost_seconds = start_seconds, lost_seconds
        self._pause = min(5.0, lost_seconds / BEATS)
        self._ended = threading.Event()
        self._reset_times()
        self._numbers: dict[int, bytes] = {}  # machine -> its number
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Start the two threads."""
        self._beating.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Tell the other machines that this one no longer takes part, if they answer soon."""
        self._ended.set()
        self._beating.join(self._pause)

    def _reset_times(self) -> None:
        now = time.monotonic()
        self._answer_time = now  # of the store
        self._complete_time = now  # when the last machine has started
        self._times = dict.fromkeys(range(self._machines.count), now)  # machine -> when its number has changed

    def _beat(self) -> None:
        number = 0
        while not self._ended.is_set():
            with contextlib.suppress(RuntimeError):  # no connection; `_watch` measures for how long
                store = self._open_store()
                while not self._ended.wait(self._pause):
                    number += 1
                    self._exchange(store, str(number).encode())
                self._exchange(store, ENDED)
            self._ended.wait(self._pause)

    def _open_store(self) -> Any:
        from torch.distributed import TCPStore

        limit = timedelta(seconds=self._lost_seconds)
        return TCPStore(
            self._machines.host, self._machines.port, is_master=False, timeout=limit, wait_for_workers=False
        )

    def _exchange(self, store: Any, number: bytes) -> None:
        """Write the number of this machine, and read those of the others."""
        store.set(self._key(self._machines.rank), number)
        for machine in range(self._machines.count):
            if machine in self._numbers or store.check([self._key(machine)]):
                read = store.get(self._key(machine))
                if self._numbers.get(machine) != read:
                    if machine not in self._numbers:
                        self._complete_time = time.monotonic()
                    self._numbers[machine], self._times[machine] = read, time.monotonic()
        self._answer_time = time.monotonic()

    def _key(self, machine: int) -> str:
        return f"signllava/heartbeat/{machine}"

    def _watch(self) -> None:
        last_time = time.monotonic()
        while not self._ended.wait(self._pause):
            now = time.monotonic()
            if now - last_time > self._lost_seconds / 2:  # this process itself was suspended
                self._reset_times()
            last_time = now
            problem = self._find_problem(now)
            if problem is not None and not self._ended.is_set():
                error(problem)
                flush()
                os._exit(LOST if self.is_connected else UserError.exit_code)

    def _find_problem(self, now: float) -> str | None:
        machines = self._machines
        limit = self._lost_seconds if self._numbers else self._start_seconds
        if now - self._answer_time > limit:
            return self._lost_message(0, limit)
        for machine, changed in list(self._times.items()):
            number = self._numbers.get(machine)
            if number is None and now - changed > self._start_seconds:
                return (
                    f"the ranks of machine {machine} have not started within {self._start_seconds:g} s "
                    f"(launch.rendezvous_timeout), or do not reach {machines.address}; see the output of machine "
                    f"{machine}."
                )
            if number not in (None, ENDED) and now - changed > self._lost_seconds:
                return self._lost_message(machine, self._lost_seconds)
        is_complete = len(self._numbers) == machines.count
        if is_complete and not self.is_connected and now - self._complete_time > self._lost_seconds:
            return (
                f"all machines reach {machines.address}, but their ranks could not connect to each other within "
                f"{self._lost_seconds:g} s (launch.heartbeat_timeout). {_advice(machines)}"
            )
        return None

    def _lost_message(self, machine: int, seconds: float) -> str:
        return (
            f"machine {self._machines.rank} has had no answer of machine {machine} for {seconds:g} s "
            f"(launch.heartbeat_timeout): it has ended, or the network is interrupted (machine 0 is at "
            f"{self._machines.address}). Run the same command again on all machines to resume."
        )
