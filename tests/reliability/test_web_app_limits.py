"""A real `signllava serve` process, and clients that want too much, too often, too slowly, or for another site."""

import contextlib
import http.client
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from web_requests import form, send_request, served

from signllava_cli.serving.connections import MAX_CONNECTIONS
from signllava_cli.serving.limits import MAX_BURST, MAX_RUNNING

SECONDS = 6.0  # of the time limits
RATE = 5  # POST requests per second: a busy machine cannot send more than the default
SETUP = f"""
from signllava_cli.serving import connections, limits
limits.MAX_PER_SECOND = {RATE}
connections.HEAD_SECONDS = connections.WRITE_SECONDS = limits.BODY_SECONDS = {SECONDS}
"""
TRANSLATE = "api/recordings/translate?recording=dev01"
UNKNOWN = "api/recordings/translate?recording=nobody"  # refused before any work
FRIENDLY_SITES: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "http://{host}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://other"},
)
OTHER_SITES: tuple[dict[str, str], ...] = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://{host}.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://{host}"},
)


@pytest.fixture(scope="module")
def app(run: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The URL and the process of the app."""
    with served("-c", run, "--split", "dev", setup=SETUP) as (address, process):
        yield address, psutil.Process(process.pid)


def connect(address: str, receive_buffer: int | None = None) -> socket.socket:
    host, port = re.findall(r"//(.+):([0-9]+)/", address)[0]
    client = socket.socket()
    client.settimeout(60)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((host, int(port)))
    return client


def post_head(address: str, path: str, length: int) -> bytes:
    host = address.split("/")[2]
    content = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}"
    return f"POST /{path} HTTP/1.1\r\nHost: {host}\r\n{content}\r\n\r\n".encode()


def read_status(client: socket.socket) -> int:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status


def count_connections(process: psutil.Process) -> int:
    """The connections that the process holds."""
    return sum(each.status != psutil.CONN_LISTEN for each in process.net_connections("inet"))


@pytest.mark.reliability("Security", "the web app listens on loopback, and answers its own host and site alone")
def test_only_loopback_is_listened_on(app: tuple[str, psutil.Process]) -> None:
    _, process = app
    listening = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}


@pytest.mark.reliability("Security", "the web app listens on loopback, and answers its own host and site alone")
def test_other_hosts_and_other_sites_are_refused(
    app: tuple[str, psutil.Process], record_property: Callable[[str, object], None]
) -> None:
    address, _ = app
    host = address.split("/")[2]
    hosts = ("evil.example", f"{host}.evil.example", "127.0.0.2", "localhost.evil.example", "")
    for name in hosts:
        assert send_request(address, "api/model", None, Host=name)[0] == 400, name
    for headers, status in [(each, 404) for each in FRIENDLY_SITES] + [(each, 403) for each in OTHER_SITES]:
        filled: dict[str, Any] = {key: value.format(host=host) for key, value in headers.items()}
        assert send_request(address, UNKNOWN, b"", **filled)[0] == status, headers
    cross_site: dict[str, Any] = {"Sec-Fetch-Site": "cross-site"}
    assert send_request(address, "api/recordings", None, **cross_site)[0] == 403
    with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as client:  # a link on another site
        client.request("GET", "/", headers={"Sec-Fetch-Site": "cross-site"})
        answer = client.getresponse()
        policy = answer.headers["Content-Security-Policy"]
    assert answer.status == 200
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    record_property("requests", len(hosts) + len(FRIENDLY_SITES) + len(OTHER_SITES) + 2)


@pytest.mark.drill
@pytest.mark.reliability("Security", "the web app limits size, rate and number of requests, and goes on")
def test_too_many_requests_are_refused_at_once(
    app: tuple[str, psutil.Process], record_property: Callable[[str, object], None]
) -> None:
    address, _ = app
    with contextlib.closing(http.client.HTTPConnection(address.split("/")[2], timeout=60)) as client:
        statuses: Counter[int] = Counter()
        start = time.monotonic()
        while not statuses[429]:
            client.request("POST", f"/{UNKNOWN}")
            answer = client.getresponse()
            answer.read()
            statuses[answer.status] += 1
            assert sum(statuses.values()) <= MAX_BURST + RATE * (time.monotonic() - start) + 1
    assert answer.headers["Retry-After"] == "1"
    assert statuses.keys() == {404, 429}
    time.sleep(2 + MAX_RUNNING / RATE)
    clients = [connect(address) for _ in range(MAX_RUNNING + 1)]
    for number, connection in enumerate(clients):
        connection.sendall(post_head(address, "api/uploads/translate", 1000))
        time.sleep(1 if number == MAX_RUNNING - 1 else 0.05)
    assert read_status(clients[-1]) == 503
    assert send_request(address, "api/recordings")[0] == 200
    for connection in clients:
        connection.close()
    wait_for_translation(address)
    record_property("requests", sum(statuses.values()) + len(clients))


def wait_for_translation(address: str) -> None:
    deadline = time.monotonic() + 60
    while (answer := send_request(address, TRANSLATE, b""))[0] != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


@pytest.mark.reliability("Security", "slow, silent and broken clients of the web app block no other, and end")
@pytest.mark.drill
@pytest.mark.parametrize(("idle", "slow"), [(100, 10), (3000, 25)], ids=["some", "thousands"])
def test_slow_clients_block_no_other_and_are_closed(
    app: tuple[str, psutil.Process], idle: int, slow: int, record_property: Callable[[str, object], None]
) -> None:
    address, process = app
    wait_for_translation(address)
    with contextlib.ExitStack() as stack:
        dripping = [*connect_with(stack, address, SLOW_HEAD, slow), *connect_with(stack, address, SLOW_BODY, slow)]
        for kind in (SLOW_READER, HALF_CLOSED):
            connect_with(stack, address, kind, slow)
        connect_with(stack, address, SILENT, idle)
        for client in connect_with(stack, address, SLOW_BODY, slow // 5):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # a reset
        start = time.monotonic()
        for number in range(5):
            assert send_request(address, "api/recordings")[0] == 200
            assert send_request(address, TRANSLATE, b"")[0] == 200
            for client in dripping:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
            if number == 0:
                record_property("seconds of a translation meanwhile", time.monotonic() - start)
        deadline = time.monotonic() + 10 * SECONDS
        while number := count_connections(process):
            assert time.monotonic() < deadline, f"{number} connections are still open"
            time.sleep(0.2)
    assert process.num_fds() < MAX_CONNECTIONS
    assert send_request(address, TRANSLATE, b"")[0] == 200
    record_property("slow, silent and broken clients", 4 * slow + slow // 5 + idle)


SILENT, SLOW_HEAD, SLOW_BODY, SLOW_READER, HALF_CLOSED = "silent", "head", "body", "reader", "half closed"


def connect_with(stack: contextlib.ExitStack, address: str, kind: str, number: int) -> list[socket.socket]:
    """Connections that have sent the begin of a request; or whole ones, whose answers nobody reads or waits for."""
    begin: dict[str, Any] = {
        SILENT: b"",
        SLOW_HEAD: b"GET /api/model HTTP/1.1\r\nX: ",
        SLOW_BODY: post_head(address, "api/uploads/translate", 1_000_000) + form({"a.npy": b""})["body"][:40],
        SLOW_READER: f"GET /openapi.json HTTP/1.1\r\nHost: {address.split('/')[2]}\r\n\r\n".encode() * 100,
        HALF_CLOSED: post_head(address, "api/uploads/translate", 1_000_000),
    }
    clients = []
    for _ in range(number):
        client = stack.enter_context(connect(address, 4096 if kind == SLOW_READER else None))
        client.sendall(begin[kind])
        if kind == HALF_CLOSED:
            client.shutdown(socket.SHUT_WR)
        clients.append(client)
    return clients
