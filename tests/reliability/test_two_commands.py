"""Two commands that write the same folder: the second one is refused, and the first one is not disturbed."""

import errno
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, interrupted, sets, subprocess_command, wait_until_stopped
from faults import FaultedCommands
from test_full_disk import predictions_contents, run_contents

pytest_plugins = ["fault_fixtures"]
Command = Callable[..., Ended]
PROMISE = pytest.mark.reliability("Faults", "of two commands that write one folder, the second is refused")
NO_LOCKS = pytest.mark.reliability("Faults", "a file system without locks costs a warning, and no result")


def stopped(pattern: str, words: list[object]) -> subprocess.Popen[str]:
    """Start a command, and wait until it has stopped itself before its second append to the file."""
    process = subprocess_command(*words, env=interrupted(pattern, 2, signal.SIGSTOP))
    wait_until_stopped(process)
    return process


def assert_refused_and_finish(
    signllava: Command, words: list[object], first: subprocess.Popen[str], out: Path
) -> None:
    try:
        ended = signllava(*words)
        assert ended.code == 2, ended.out
        assert ended.err.startswith(f"error: Another process is writing to {out}")
        assert len(ended.err.strip().splitlines()) == 1
        first.send_signal(signal.SIGCONT)
        output, _ = first.communicate(timeout=300)
        assert first.returncode == 0, output
    finally:
        first.kill()
        first.wait()


@PROMISE
@pytest.mark.drill
def test_a_second_run_in_the_folder_is_refused(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    words: list[object] = ["pretrain", "-r", "toy/tiny_pretrain", *sets(settings)]
    assert_refused_and_finish(signllava, words, stopped("metrics.jsonl", words), tmp_path / "run")
    expected = tmp_path / "expected"
    assert signllava(*words, *sets([f"run.output_dir={expected}"])).code == 0
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        assert (tmp_path / "run" / "last" / file).read_bytes() == (expected / "last" / file).read_bytes()


@PROMISE
@pytest.mark.drill
def test_a_second_generate_into_the_folder_is_refused(signllava: Command, run: Path, tmp_path: Path) -> None:
    words: list[object] = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 2, "--batch-size", 4, "--out"]
    out, expected = tmp_path / "out", tmp_path / "expected"
    assert_refused_and_finish(signllava, [*words, out], stopped("1-of-1.jsonl", [*words, out]), out)
    assert signllava(*words, expected).code == 0
    assert predictions_contents(out) == predictions_contents(expected)


@NO_LOCKS
@pytest.mark.drill
@pytest.mark.parametrize("name", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_without_locks_training_and_decoding_warn_and_work(
    commands: FaultedCommands, settings: list[str], run: Path, tmp_path: Path, name: str
) -> None:
    training = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.preflight=false"])]
    decoding = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 2, "--out", tmp_path / "out"]
    results = []
    for flock_error in (getattr(errno, name), 0):
        commands.faults.set(flock_error=flock_error)
        for words in (training, decoding):
            ran = commands(*words)
            assert ran.code == 0, ran.out
            assert ("file system without locks" in ran.out) == bool(flock_error), ran.out
        results.append((run_contents(tmp_path / "run"), predictions_contents(tmp_path / "out")))
        for folder in ("run", "out"):
            (tmp_path / folder).rename(tmp_path / f"{folder}-{flock_error}")
    assert results[0] == results[1]
