"""A run of which one process is killed or stopped for a while, at a known event."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import MadeOnce, interrupted, sets, subprocess_command, wait_until_stopped
from safetensors.torch import load_file

RecordProperty = Callable[[str, object], None]
Uninterrupted = Callable[[str], Path]
LIMIT = 300  # seconds for a command of a few steps
KILLED_PAUSE, STOPPED_PAUSE = 0.5, 5.0
LAUNCHED = ["--launch", "multi_cpu"]
FILES = ("projector.safetensors", "resume/optimizer.safetensors")


def command_words(settings: list[str], run: Path, *more: object) -> list[object]:
    some = ["train.micro_batch_size=2", "train.max_steps=8", "train.eval_steps=4", "data.num_workers=2"]
    return ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *some, f"run.output_dir={run}"]), *more]


def run_to_end(words: list[object]) -> str:
    process = subprocess_command(*words)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def uninterrupted(made_once: MadeOnce, settings: list[str]) -> Uninterrupted:
    """`uninterrupted("single")`, `uninterrupted("ranks")`: a run of one process, and of two ranks, made once."""

    def run(kind: str) -> Path:
        more = LAUNCHED if kind == "ranks" else []
        return made_once(f"killed-{kind}", lambda folder: run_to_end(command_words(settings, folder, *more)))

    return run


def assert_same_weights(expected: Path, run: Path) -> None:
    assert os.readlink(expected / "last") == os.readlink(run / "last")
    for file in FILES:
        assert (expected / "last" / file).read_bytes() == (run / "last" / file).read_bytes(), file
    assert load_file(run / "last" / FILES[0])


def stop_at_step(step: int, words: list[object]) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a run of which rank 0 stops itself (SIGSTOP) before it logs `step`; its processes, the command last."""
    environment = interrupted("metrics.jsonl", step, signal.SIGSTOP)
    process = subprocess_command(*words, env=environment, start_new_session=True)
    return process, wait_until_stopped(process)


def resume_all(family: list[psutil.Process]) -> None:
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.resume()


def assert_one_line(output: str) -> None:
    assert output.count("error: ") == 1, output
    assert "Traceback" not in output, output


@pytest.mark.reliability("Faults", "a run whose loader worker is killed ends in one line and resumes")
@pytest.mark.drill
@pytest.mark.parametrize("kind", ["single", "ranks"])
def test_a_killed_loader_worker_is_one_line_and_a_rerun_resumes(
    settings: list[str], tmp_path: Path, uninterrupted: Uninterrupted, kind: str, record_property: RecordProperty
) -> None:
    words = command_words(settings, tmp_path / "killed", *(LAUNCHED if kind == "ranks" else []))
    process, family = stop_at_step(4, words)
    rank = next(member for member in family if member.status() == psutil.STATUS_STOPPED)
    workers = rank.children()
    assert len(workers) == 2
    workers[0].kill()
    time.sleep(KILLED_PAUSE)
    resume_all(family)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, output
    assert_one_line(output)
    assert "A worker process that reads clips was ended" in output
    assert "lower data.num_workers" in output
    assert "Run the same command again to resume." in output
    run_to_end(words)
    assert_same_weights(uninterrupted(kind), tmp_path / "killed")
    record_property("kills", 1)


@pytest.mark.reliability("Faults", "a run that is stopped for a while goes on to the same weights")
@pytest.mark.drill
@pytest.mark.parametrize("kind", ["single", "ranks"])
def test_a_run_that_is_stopped_for_a_while_goes_on(
    settings: list[str], tmp_path: Path, uninterrupted: Uninterrupted, kind: str, record_property: RecordProperty
) -> None:
    """With ranks, rank 0 is stopped while the other one waits for it; and then the other one."""
    expected, run = uninterrupted(kind), tmp_path / "stopped"
    process, family = stop_at_step(4, command_words(settings, run, *(LAUNCHED if kind == "ranks" else [])))
    time.sleep(STOPPED_PAUSE)
    others = [rank for rank in psutil.Process(process.pid).children() if rank.status() != psutil.STATUS_STOPPED]
    if kind == "ranks":
        assert len(others) == 1
        others[0].suspend()
        resume_all([member for member in family if member.pid != others[0].pid])
        time.sleep(STOPPED_PAUSE)
        assert process.poll() is None
        others[0].resume()
    resume_all(family)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    assert "error: " not in output
    assert_same_weights(expected, run)
    record_property("stops", 2 if kind == "ranks" else 1)


@pytest.mark.reliability("Faults", "a killed rank or launcher ends the run, and a rerun resumes to the same weights")
@pytest.mark.drill
@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "launcher"])
def test_a_killed_rank_or_launcher_ends_all_and_a_rerun_resumes(
    settings: list[str], tmp_path: Path, uninterrupted: Uninterrupted, victim: str, record_property: RecordProperty
) -> None:
    run = tmp_path / "killed"
    words = command_words(settings, run, *LAUNCHED)
    process, family = stop_at_step(4, words)
    rank_0 = next(member for member in family if member.status() == psutil.STATUS_STOPPED)
    ranks = psutil.Process(process.pid).children()
    victims = {"rank 0": rank_0, "rank 1": next(r for r in ranks if r.pid != rank_0.pid), "launcher": family[-1]}
    victims[victim].kill()
    resume_all(family)
    output, _ = process.communicate(timeout=LIMIT)
    _, alive = psutil.wait_procs(family[:-1], timeout=LIMIT)
    assert not alive
    if victim == "launcher":
        assert process.returncode == -signal.SIGKILL
        assert "the launcher has ended" in (run / "log.txt").read_text()
    else:
        assert process.returncode == 128 + signal.SIGKILL, output
        assert f"error: {victim} was ended by SIGKILL" in output
        assert_one_line(output)
    assert "resumed from" in run_to_end(words)
    assert_same_weights(uninterrupted("ranks"), run)
    record_property("kills", 1)
