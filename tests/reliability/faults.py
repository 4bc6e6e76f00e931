"""Commands whose calls to the system fail, as on a full or broken disk, or whose clock jumps; see fault_shim.c.

`Faults` sets what fails, in a file that all processes of a command map. `FaultedCommands` runs commands in forked
children of one process, because starting Python and importing torch takes longer than a short run.
"""

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CONTROL = struct.Struct("8q256s512s")  # `struct control` of fault_shim.c
ALL_LATER = 2**62
SECONDS = 300  # limit of one command


@dataclass(frozen=True)
class Ran:
    """A command that has ended: exit code (-N: by signal N), output and errors, and the first call that failed."""

    code: int
    out: str
    num_calls: int
    failed_call: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith("error: ")]


@contextlib.contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    """Mount `folder` over itself, read-only: file modes do not stop root."""
    if subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True).returncode:
        pytest.skip("a folder cannot be mounted")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def build_shim(folder: Path) -> None:
    """Compile fault_shim.c into `folder`."""
    folder.mkdir()
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(folder / "shim.so")]
    subprocess.run(["gcc", *options, str(FOLDER / "fault_shim.c")], check=True)


class Faults:
    """The control file of the shim in `folder`, and the environment of the commands that it applies to."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self._file = folder / "control"
        self.set()
        self.environment = {**os.environ, "LD_PRELOAD": str(shim / "shim.so"), "FAULT_CONTROL": str(self._file)}

    def set(
        self,
        prefix: Path | str = "",
        first: int = 0,
        last: int = 0,
        error: int = 0,
        flock_error: int = 0,
        jump: int = 0,
        jump_every: int = 0,
    ) -> None:
        """Let the calls with the numbers `first` to `last` on files below `prefix` fail, counted from 1.

        `error`: an errno; 0: the process is killed instead.
        """
        values = (0, first, last, error, flock_error, jump, jump_every, 0)
        content = CONTROL.pack(*values, str(prefix).encode(), b"")
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(content)

    def read(self) -> tuple[int, str]:
        """The number of counted calls, and the first one that failed with its path, or an empty text."""
        values = CONTROL.unpack(self._file.read_bytes())
        return int(values[0]), values[-1].rstrip(b"\0").decode()

    def num_clock_reads(self) -> int:
        return int(CONTROL.unpack(self._file.read_bytes())[7])


class FaultedCommands:
    """Runs commands in forked children of one process, under the faults that are set."""

    def __init__(self, faults: Faults, folder: Path) -> None:
        self.faults, self._out = faults, folder / "out"
        self._server = subprocess.Popen(
            [sys.executable, str(FOLDER / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # a thread of pyarrow's allocator, which is not in the child, can leave it waiting for a lock forever
            env={**faults.environment, "JE_ARROW_MALLOC_CONF": "background_thread:false"},
            start_new_session=True,
        )
        assert self._read_line() == "ready"

    def __call__(self, *words: object) -> Ran:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps({"words": [*map(str, words)], "out": str(self._out)}) + "\n")
        self._server.stdin.flush()
        code = int(self._read_line())
        return Ran(code, self._out.read_text(), *self.faults.read())

    def _read_line(self) -> str:
        assert self._server.stdout is not None
        readable, _, _ = select.select([self._server.stdout], [], [], SECONDS)
        if not readable:
            self.close()
            pytest.fail(f"a command did not end within {SECONDS} s: {self._out.read_text()}")
        return str(self._server.stdout.readline().strip())

    def has_ended(self) -> bool:
        return self._server.poll() is not None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, 9)
        self._server.wait()
