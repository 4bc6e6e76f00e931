"""The web app in a process of its own, and requests to it."""

import contextlib
import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def served(
    *options: object, setup: str = "", env: dict[str, str] | None = None
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The URL and the process of `signllava serve` with these options, on loopback and a free port.

    `setup`: Python code that runs in the process first, to set shorter time limits.
    """
    command = f"{setup}\nfrom signllava_cli.cli.main import run\nrun()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--port", "0", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    try:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if match := re.search(r"http://127\.0\.0\.1:[0-9]+/", line):
                break
        else:
            raise AssertionError(f"the app did not start: {''.join(seen)}")
        yield match[0], process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send_request(
    address: str, path: str, body: bytes | None = None, timeout: float = 60, **headers: str
) -> tuple[int, Any]:
    """Status and lines of the answer, or the text of an error; POST if there is a body."""
    request = urllib.request.Request(address + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, [json.loads(line) for line in response.read().splitlines()]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def form(files: dict[str, bytes], **fields: object) -> dict[str, Any]:
    """A multipart body and its header, for `send_request`."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    for name, content in files.items():
        head = f'--b\r\nContent-Disposition: form-data; name="uploads"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return {"body": b"".join(parts) + b"--b--\r\n", "Content-Type": "multipart/form-data; boundary=b"}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
