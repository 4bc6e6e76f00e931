"""Machines of a launch notice which other one has not started, is lost, or has no connection; gloo's interface."""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest
from torch import distributed

from signllava_cli.heartbeat import ENDED, LOST, Heartbeat
from signllava_cli.network import GLOO_INTERFACE, Machines, find_interface, set_gloo_interface

SECONDS = 1.5


class Exits:
    """What a heartbeat prints and exits with, instead of the end of this process."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.ended = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()
        threading.Event().wait()  # the thread goes no further


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    replacement = Exits()
    monkeypatch.setattr(os, "_exit", replacement)
    return replacement


@pytest.fixture
def store() -> distributed.TCPStore:
    return distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


@pytest.fixture
def heartbeat(store: distributed.TCPStore) -> Iterator[Heartbeat]:
    started = Heartbeat(Machines("127.0.0.1", store.port, 0, 2), SECONDS, SECONDS)
    started.start()
    yield started
    started.end()


@pytest.mark.parametrize(
    ("number", "is_connected", "code", "message"),
    [
        (None, False, 2, "the ranks of machine 1 have not started within 1.5 s"),
        (b"1", True, LOST, "has had no answer of machine 1 for 1.5 s"),
        (ENDED, False, 2, "could not connect to each other within 1.5 s"),
    ],
)
def test_the_missing_machine_is_named(
    store: distributed.TCPStore,
    heartbeat: Heartbeat,
    exits: Exits,
    capsys: pytest.CaptureFixture[str],
    number: bytes | None,
    is_connected: bool,
    code: int,
    message: str,
) -> None:
    heartbeat.is_connected = is_connected
    if number is not None:
        store.set("signllava/heartbeat/1", number.decode())
    assert exits.ended.wait(30)
    assert exits.codes == [code]
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.drill
def test_a_machine_that_has_ended_is_not_lost(
    store: distributed.TCPStore, heartbeat: Heartbeat, exits: Exits
) -> None:
    heartbeat.is_connected = True
    store.set("signllava/heartbeat/1", ENDED.decode())
    assert not exits.ended.wait(2 * SECONDS)
    heartbeat.end()
    assert store.get("signllava/heartbeat/0") == ENDED  # so this one is not lost for others either


def test_gloo_uses_the_interface_to_machine_0_unless_the_user_has_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        address.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family.name == "AF_INET" and not address.address.startswith("127.")
    }
    if not names:
        pytest.skip("this machine has no network interface but the loopback")
    address, name = next(iter(names.items()))
    assert find_interface(Machines(address, 29500, 1, 2)) in (name, "lo")  # packets to itself
    assert find_interface(Machines("127.0.0.1", 29500, 1, 2)) is None
    assert find_interface(Machines("no-such-host.invalid", 29500, 1, 2)) is None
    monkeypatch.setenv(GLOO_INTERFACE, "ib0")
    set_gloo_interface(Machines(address, 29500, 1, 2))
    assert os.environ[GLOO_INTERFACE] == "ib0"
