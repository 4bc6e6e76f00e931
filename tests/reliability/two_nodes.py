"""Two nodes on this machine: network namespaces with their own address and host name, and a wire between them.

The wire is a relay in this process between a tap device in each namespace. It can delay packets, drop a share of
them, swallow the packets to some ports, and be cut: what `tc netem` does, which not every kernel has.
"""

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SIGNLLAVA = [sys.executable, "-m", "signllava_cli"]
PORT = 29500
MTU = 9000  # few packets, since the relay takes its time for each
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
IPV4, TCP = 0x0800, 6
TUN, HOST_NAME = Path("/dev/net/tun"), Path("/proc/sys/kernel/hostname")


def missing_for_nodes() -> str | None:
    """Why this machine cannot make two nodes, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not TUN.exists():
        return f"no {TUN} on this machine"
    if not (shutil.which("ip") and shutil.which("unshare")):
        return "no ip and unshare on this machine (Debian: apt install iproute2 util-linux)"
    if subprocess.run(["ip", "netns", "add", f"try{os.getpid()}"], capture_output=True, check=False).returncode:
        return "this machine makes no network namespaces"
    ip("netns", "del", f"try{os.getpid()}")
    return None


def ip(*words: str) -> None:
    ended = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"ip {' '.join(words)}: {ended.stderr}"


@dataclass
class Wire:
    """The wire between two tap devices; every attribute may change while packets pass.

    `delay`: seconds, in each direction. `loss`: the share of packets that are dropped. `is_cut`: nothing passes.
    `swallows`: whether a TCP segment with these two ports (of the sender, of the receiver) is dropped.
    """

    taps: tuple[int, int]
    delay: float = 0.0
    loss: float = 0.0
    is_cut: bool = False
    swallows: Callable[[int, int], bool] | None = None
    passed: int = 0
    dropped: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _relay(self) -> None:
        """Move packets from each tap device to the other one until the end."""
        waiting: list[tuple[float, int, int, bytes]] = []  # due time, number, receiver, packet
        numbers, chance = itertools.count(), random.Random(0)
        while not self._ended.is_set():
            pause = 0.1 if not waiting else min(0.1, max(0.0, waiting[0][0] - time.monotonic()))
            for tap in select.select(self.taps, [], [], pause)[0]:
                packet = os.read(tap, MTU + 100)
                if self._drops(packet, chance):
                    self.dropped += 1
                    continue
                receiver = self.taps[1 - self.taps.index(tap)]
                heapq.heappush(waiting, (time.monotonic() + self.delay, next(numbers), receiver, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, receiver, packet = heapq.heappop(waiting)
                if not self.is_cut:
                    self.passed += 1
                    with contextlib.suppress(OSError):  # the receiver's queue is full
                        os.write(receiver, packet)

    def _drops(self, packet: bytes, chance: random.Random) -> bool:
        if self.is_cut or chance.random() < self.loss:
            return True
        ports = ports_of(packet)
        return self.swallows is not None and ports is not None and self.swallows(*ports)


def ports_of(packet: bytes) -> tuple[int, int] | None:
    """The two ports of an Ethernet packet with a TCP segment over IPv4; None for any other packet."""
    (kind,) = struct.unpack_from("!H", packet, 12)
    if kind != IPV4 or packet[23] != TCP:
        return None
    header_words = packet[14] & 0x0F
    sender, receiver = struct.unpack_from("!HH", packet, 14 + 4 * header_words)
    return sender, receiver


@dataclass
class Node:
    """A network namespace `name`, in which commands run; `address` is that of its end of the wire."""

    name: str
    rank: int
    address: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in this node, in a process group of its own."""
        host = ["unshare", "--uts", "sh", "-c", f'echo node{self.rank} > {HOST_NAME} && exec "$@"', "sh"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *host, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_with_own(self, folder: Path, *words: object) -> subprocess.Popen[str]:
        """Start a command in this node, for which `folder` is another folder than for the other node."""
        script = 'mount -t tmpfs none "$0" && exec "$@"'
        return self.start("unshare", "--mount", "sh", "-c", script, folder, *words)

    def signllava(self, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the `signllava` command in this node."""
        return self.start(*SIGNLLAVA, *words, env=env)

    def kill(self) -> None:
        """Kill all processes of this node at once, as a power cut would, but their connections are closed."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                running = psutil.Process(process.pid)
                for member in (*running.children(recursive=True), running):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.send_signal(signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[Node, Node, Wire]]:
    """Two nodes, 10.77.0.1 and 10.77.0.2, and the wire between them; all of it is removed after the block.

    As on Debian, a node's own host name resolves to 127.0.1.1 in it.
    """
    nodes = [Node(f"sl{os.getpid()}n{rank}", rank, f"10.77.0.{rank + 1}") for rank in (0, 1)]
    taps: list[int] = []
    try:
        for node in nodes:
            hosts = Path("/etc/netns") / node.name / "hosts"  # `ip netns exec` shows it as /etc/hosts
            hosts.parent.mkdir(parents=True)
            others = [f"{other.address} node{other.rank}" for other in nodes if other is not node]
            hosts.write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 node{node.rank}", *others]) + "\n")
            ip("netns", "add", node.name)
            taps.append(open_tap(f"t{node.name}"[:15], node))
        wire = Wire((taps[0], taps[1]))
        wire.start()
        yield nodes[0], nodes[1], wire
        wire.end()
    finally:
        for node in nodes:
            node.kill()
            subprocess.run(["ip", "netns", "del", node.name], capture_output=True, check=False)
            shutil.rmtree(f"/etc/netns/{node.name}", ignore_errors=True)
        for tap in taps:
            os.close(tap)


def open_tap(device: str, node: Node) -> int:
    """Make a tap device, the network interface `eth0` of `node`, and return its file descriptor here."""
    tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    ip("link", "set", device, "netns", node.name)
    for words in (
        ["link", "set", "lo", "up"],
        ["link", "set", device, "name", "eth0", "mtu", str(MTU)],
        ["addr", "add", f"{node.address}/24", "dev", "eth0"],
        ["link", "set", "eth0", "up"],
    ):
        ip("-n", node.name, *words)
    return tap


def launch_options(node: Node, profile: str, host: str = "node0") -> list[object]:
    """The options with which a node starts its part of a launch of one process on each node."""
    topology = ["--num-machines", 2, "--num-processes", 2, "--machine-rank", node.rank]
    return ["--launch", profile, *topology, "--main-process-ip", host, "--main-process-port", PORT]


def outputs_of(processes: Sequence[subprocess.Popen[str]], seconds: float = 400) -> list[str]:
    """What the processes print until their end, which must come in time."""
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda process: process.communicate(timeout=seconds)[0], processes))
