"""While packages are loaded, which takes seconds, a terminal shows it; a pipe or file has no such line."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

LOADING = "loading torch"
COMMANDS = [
    ["env"],
    ["generate", "--checkpoint", "missing"],
    ["serve", "--checkpoint", "missing"],
    ["pretrain", "--recipe", "toy/tiny_pretrain"],
    ["prepare", "llm", "tiny", "--corpus", "missing"],
    ["prepare", "describe", "missing", "--recipe", "toy/tiny_pretrain"],
]


def run_on_terminal(arguments: list[str], folder: Path) -> str:
    """The output of the command on a terminal of its own, until it shows that packages are loaded, or to its end."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    command = [sys.executable, "-m", "signllava_cli", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output = b""
    try:
        while LOADING.encode() not in output:
            output += os.read(leader, 4096)
    except OSError:  # the process has ended
        pass
    finally:
        process.kill()
        process.wait(timeout=60)
        os.close(leader)
    return output.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(each, id=" ".join(each[:2]), marks=pytest.mark.drill if number else [])
        for number, each in enumerate(COMMANDS)
    ],
)
def test_a_terminal_shows_that_packages_are_loaded(arguments: list[str], tmp_path: Path) -> None:
    assert LOADING in run_on_terminal(arguments, tmp_path)


@pytest.mark.drill
def test_json_does_not_show_it(tmp_path: Path) -> None:
    output = run_on_terminal(["env", "--json"], tmp_path)
    assert "signllava" in output
    assert LOADING not in output


def test_a_pipe_has_no_line_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "signllava_cli", "env"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert LOADING not in done.stdout + done.stderr
