"""The network between the machines of a launch: torchrun's description of it, and gloo's network interface."""

import os
import socket
from dataclasses import dataclass

import psutil

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True)
class Machines:
    """The machines of a launch, as torchrun describes them to each rank.

    `host`, `port`: where machine 0 waits for the others; its launcher keeps torch's store there. `rank`: of this
    machine.
    """

    host: str
    port: int
    rank: int
    count: int

    @classmethod
    def of_launch(cls) -> "Machines | None":
        """The machines of the launch that started this process; None if all ranks are on this machine."""
        environment = os.environ
        count = int(environment.get("GROUP_WORLD_SIZE", "1"))
        if count == 1 or "RANK" not in environment:
            return None
        host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        return cls(host, port, int(environment["GROUP_RANK"]), count)

    @property
    def address(self) -> str:
        """`host:port` of machine 0."""
        return f"{self.host}:{self.port}"


def set_gloo_interface(machines: Machines) -> None:
    """Let gloo use the network interface through which this machine reaches machine 0, unless the user has set one.

    By itself gloo takes the address that the host name of this machine resolves to: on Debian and Ubuntu 127.0.1.1,
    at which other machines reach only themselves. (NCCL chooses a network interface that is not the loopback.)
    """
    if GLOO_INTERFACE not in os.environ and (interface := find_interface(machines)):
        os.environ[GLOO_INTERFACE] = interface


def find_interface(machines: Machines) -> str | None:
    """The network interface through which this machine reaches machine 0, or None if this cannot be told."""
    if machines.host.startswith(LOOPBACK):
        return None  # all launchers run on this machine
    names = {
        address.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    own_address = _own_address(machines.host, machines.port)
    if own_address is None or not own_address.startswith(LOOPBACK):
        return names.get(own_address or "")
    # On machine 0 its own host name may resolve to a loopback address.
    others = {name for address, name in names.items() if not address.startswith((*LOOPBACK, "fe80"))}
    return others.pop() if len(others) == 1 else None


def _own_address(host: str, port: int) -> str | None:
    """The address of this machine from which packets to `host` are sent; no packet is sent."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as route:
            route.connect(address)
            return str(route.getsockname()[0])
    except OSError:
        return None
