"""`signllava serve` under load, with clients that leave: its memory, handles, threads and files stay flat.

SIGNLLAVA_SOAK_REQUESTS sets the length and SIGNLLAVA_SOAK_REQUESTS_PER_SECOND the load, as in docs/reliability.md.
"""

import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process_usage import ProcessSampler, after_warm_up, growth, memory_slope
from web_requests import form, npy, npz, send_request, served

REQUESTS = int(os.environ.get("SIGNLLAVA_SOAK_REQUESTS", "900"))
RATE = float(os.environ.get("SIGNLLAVA_SOAK_REQUESTS_PER_SECOND", "inf"))
CLIENTS = 4
PATIENCE = 600.0  # seconds: the machine may be busy
MAX_BYTES_PER_REQUEST = 16 * 1024  # the uploads have 100 KB
MAX_MORE_HANDLES = 3 * CLIENTS  # connections, and uploads on disk, of requests that are being answered
MAX_MORE_THREADS = 2 * CLIENTS
# Free pages are returned to the system all the time: what the allocator holds free grows for minutes, and then stays.
# What is kept for questions about attention reaches its limit in the warm-up.
SETUP = """
import ctypes, threading, time
from signllava_cli.serving import recent_clips

def return_free_pages():
    while True:
        ctypes.CDLL(None).malloc_trim(0)
        time.sleep(0.1)

threading.Thread(target=return_free_pages, daemon=True).start()
recent_clips.MAX_BYTES = 2**21; recent_clips.MAX_CLIPS = 100
"""
FRAMES = 220  # of a clip; the features have 220 x (48 + 64) x 4 bytes


class Load:
    """Clients that send `REQUESTS` requests, and count them by kind."""

    def __init__(self, address: str) -> None:
        self.address, self.counts, self.failures = address, Counter[str](), list[str]()
        self._lock, self._next = threading.Lock(), 0
        self._start = time.monotonic()
        rng = np.random.default_rng(0)
        clip = {name: rng.random((FRAMES, width), np.float32) for name, width in (("sign2vec", 48), ("mae", 64))}
        self._request = form({"01.npz": npz(**clip), "02.npz": npz(**clip)}, window=1)
        self._invalid_request = form({"01.mae.npy": npy(np.ones((3, 5)))})

    @property
    def num_done(self) -> int:
        """The number of requests that were answered or dropped."""
        return self.counts.total()

    def run(self) -> None:
        """Send all requests."""
        clients = [threading.Thread(target=self._send_all, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _send_all(self, number: int) -> None:
        rng = random.Random(number)
        kinds = [self.upload, self.upload, self.translate_recording, self.send_invalid_file, self.get_page]
        kinds += [self.drop_in_request, self.drop_in_answer, self.read_attention]
        while True:
            with self._lock:
                if self._next >= REQUESTS or self.failures:
                    return
                due, self._next = self._start + self._next / RATE, self._next + 1
            time.sleep(max(0.0, due - time.monotonic()))
            kind = rng.choice(kinds)
            try:
                kind()
            except Exception as error:
                self.failures.append(f"{kind.__name__}: {error!r}")
            with self._lock:
                self.counts[kind.__name__] += 1

    def upload(self) -> None:
        status, lines = send_request(self.address, "api/uploads/translate", timeout=PATIENCE, **self._request)
        assert (status, len(lines)) == (200, 2), lines

    def translate_recording(self) -> None:
        status, _ = send_request(self.address, "api/recordings/translate?recording=dev01&window=2", b"", PATIENCE)
        assert status == 200

    def read_attention(self) -> None:
        status, lines = send_request(self.address, "api/recordings/translate?recording=dev01", b"", PATIENCE)
        assert status == 200
        key = next(line["attention"] for line in reversed(lines) if line["attention"])
        status, answer = send_request(self.address, f"api/attention?key={key}", b"", PATIENCE)
        # other clients may have had more clips translated since
        assert status == 200 or (status == 404 and "translate it again" in answer)

    def send_invalid_file(self) -> None:
        status, _ = send_request(self.address, "api/uploads/translate", timeout=PATIENCE, **self._invalid_request)
        assert status == 422

    def get_page(self) -> None:
        assert send_request(self.address, "api/recordings", timeout=PATIENCE)[0] == 200
        assert send_request(self.address, "api/nothing", timeout=PATIENCE)[0] == 404

    def drop_in_request(self) -> None:
        """Send half of an upload, and reset the connection."""
        body = self._request["body"]
        with self._send_head(len(body), "api/uploads/translate", self._request["Content-Type"]) as connection:
            connection.sendall(body[: len(body) // 2])
            reset_at_close(connection)

    def drop_in_answer(self) -> None:
        """Reset the connection after the first line of the answer."""
        with self._send_head(0, "api/recordings/translate?recording=dev01&window=2", "text/plain") as connection:
            assert b" 200 " in connection.recv(100)
            reset_at_close(connection)

    def _send_head(self, length: int, path: str, content_type: str) -> socket.socket:
        host, port = re.findall(r"//(.+):([0-9]+)/", self.address)[0]
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        return connection


def reset_at_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.drill
@pytest.mark.timeout(1500 + REQUESTS if np.isinf(RATE) else 1500 + 2 * int(REQUESTS / RATE))
@pytest.mark.reliability("Soak", "memory, handles, threads and files of the web app under load stay flat")
def test_the_web_app_stays_flat_under_load(
    run: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # of uploads
    with served("-c", run, "--split", "dev", setup=SETUP, env=environment) as (address, process):
        load = Load(address)
        sampler = ProcessSampler(process.pid, lambda: load.num_done, seconds=max(0.1, REQUESTS / RATE / 5000))
        load.run()
        samples = sampler.stop()
        assert not load.failures
        assert send_request(address, "api/model")[0] == 200
        deadline = time.monotonic() + 60
        while files := [file for file in tmp_path.iterdir() if file.name.startswith("tmp")]:
            assert time.monotonic() < deadline, files  # uploads are removed
            time.sleep(0.1)
    rest = after_warm_up(samples)
    slope = memory_slope(samples)
    record_property("requests", load.num_done)
    record_property("dropped connections", load.counts["drop_in_request"] + load.counts["drop_in_answer"])
    record_property("bytes per request", slope.value)
    record_property("bytes per request, margin", slope.margin)
    print(f"memory {slope.value:.0f} ± {slope.margin:.0f} bytes per request; {dict(load.counts)}")
    print(f"handles {growth([s.handles for s in rest])} more, threads {growth([s.threads for s in rest])} more")
    assert growth([sample.handles for sample in rest]) <= MAX_MORE_HANDLES
    assert growth([sample.threads for sample in rest]) <= MAX_MORE_THREADS
    assert slope.upper < MAX_BYTES_PER_REQUEST
