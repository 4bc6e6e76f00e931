"""A checkpoint is written while training goes on: it is that of its step, and whatever follows it waits for it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

from signllava_cli import files
from signllava_cli.model.checkpoint import find_damage
from signllava_cli.training import run_folder
from signllava_cli.training.background import BackgroundTask

Command = Callable[..., Ended]
OnFlush = Callable[[Callable[[], None]], None]
FILES = ("projector.safetensors", "resume/optimizer.safetensors", "config.json")


def logged_steps(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def on_flush(monkeypatch: pytest.MonkeyPatch) -> OnFlush:
    """`on_flush(event)`: the disk calls `event` once, when a file of the first checkpoint is flushed to it."""

    def install(event: Callable[[], None]) -> None:
        fsync, events = files.fsync, [event]

        def flush(path: Path) -> None:
            if events and any(part.startswith("step-") for part in path.parts):
                events.pop()()
            fsync(path)

        monkeypatch.setattr(files, "fsync", flush)

    return install


def test_steps_go_on_during_a_write_and_do_not_change_the_checkpoint(
    signllava: Command, settings: list[str], tmp_path: Path, on_flush: OnFlush
) -> None:
    more = ["train.save_steps=4", "train.eval_steps=6"]
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more])]
    stopped, run = tmp_path / "stopped", tmp_path / "run"
    ended = signllava(*command, *sets([f"run.output_dir={stopped}", "train.stop_at_step=4"]))
    assert ended.code == 75, ended.err

    def wait_for_the_next_step() -> None:
        deadline = time.monotonic() + 60
        while 5 not in logged_steps(run) and time.monotonic() < deadline:
            time.sleep(0.01)
        steps_during_write.extend(logged_steps(run))

    steps_during_write: list[int] = []
    on_flush(wait_for_the_next_step)
    ended = signllava(*command)
    assert ended.code == 0, ended.err
    assert steps_during_write == [1, 2, 3, 4, 5]
    for file in FILES:
        assert (run / "step-000004" / file).read_bytes() == (stopped / "step-000004" / file).read_bytes(), file
    assert json.loads((run / "step-000004" / "progress.json").read_text())["step"] == 4
    assert sorted(set(logged_steps(run))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.reliability("Faults", "a signal stops a run with its state saved, on every rank")
def test_a_signal_during_a_write_stops_the_run_when_its_checkpoints_are_complete(
    signllava: Command, settings: list[str], tmp_path: Path, on_flush: OnFlush
) -> None:
    def stop_the_run() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    on_flush(stop_the_run)
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.max_steps=500"])]
    ended = signllava(*command, *sets(["train.eval_steps=500", "train.save_steps=2"]))
    assert ended.code == 75, ended.err
    run = tmp_path / "run"
    assert os.readlink(run / "last") == f"step-{logged_steps(run)[-1]:06d}"
    assert logged_steps(run)[-1] in (2, 3)
    assert not list(run.glob("step-*.tmp"))
    for checkpoint in (run / "step-000002", run / "last"):
        assert find_damage(checkpoint) is None
        assert (checkpoint / "resume" / "optimizer.safetensors").is_file()


@pytest.mark.reliability("Faults", "a disk that is full at any write of a training run loses nothing that was saved")
def test_an_error_of_a_write_ends_the_run_with_its_message(
    signllava: Command, settings: list[str], tmp_path: Path, on_flush: OnFlush
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    on_flush(fail)
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.eval_steps=6"]))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {tmp_path / 'run' / 'step-000002.tmp'}")
    assert ended.err.endswith("cannot be written: No space left on device.\n")
    assert logged_steps(tmp_path / "run")[-1] < 4  # at the latest where the next save waits
    assert not (tmp_path / "run" / "last").exists()


def test_best_is_linked_to_a_complete_checkpoint(
    signllava: Command, settings: list[str], tmp_path: Path, on_flush: OnFlush, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked: list[tuple[str, bool]] = []
    write_link = run_folder.write_link

    def link(path: Path, target: str) -> None:
        linked.append((f"{path.name} -> {target}", (path.parent / target).is_dir()))
        write_link(path, target)

    monkeypatch.setattr(run_folder, "write_link", link)
    on_flush(lambda: time.sleep(2))  # longer than the evaluation
    more = ["train.max_steps=2", "train.eval_steps=2", "train.preflight=false"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    assert linked == [("last -> step-000002", True), ("best -> step-000002", True)]
    assert json.loads((tmp_path / "run" / "best" / "progress.json").read_text())["best_step"] == 2


def test_a_task_runs_in_the_background_and_its_error_is_raised_once() -> None:
    task, is_allowed = BackgroundTask(), [False]

    def fail() -> None:
        while not is_allowed[0]:
            time.sleep(0.01)
        raise ValueError("failed")

    task.start(fail)
    task.raise_error()  # it still runs
    is_allowed[0] = True
    with pytest.raises(ValueError, match="failed"):
        task.wait()
    task.wait()
    finished: list[int] = []
    task.start(lambda: finished.append(1))
    task.start(lambda: finished.append(2))  # waits for the first
    assert finished[0] == 1
    task.wait()
    assert finished == [1, 2]


TWO_RANKS = """
import sys, time
from pathlib import Path
from signllava_cli import files
from signllava_cli.console import IS_MAIN_PROCESS
from signllava_cli.recipe import read_recipe
from signllava_cli.training import engine, loop

num_copies, waits = [0], []
copy_to_cpu, fsync = engine._copy_to_cpu, files.fsync

def count_copies(tensor):
    num_copies[0] += 1
    return copy_to_cpu(tensor)

def wait_for_two_more_steps(path):
    if "step-000003.tmp" in str(path) and not waits:
        metrics, deadline = Path(sys.argv[1]) / "metrics.jsonl", time.monotonic() + 60
        while '"step": 5' not in metrics.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        waits.append(time.monotonic() < deadline)
    fsync(path)

engine._copy_to_cpu, files.fsync = count_copies, wait_for_two_more_steps
loop.train(read_recipe("toy/tiny_pretrain", sys.argv[2:]), "pretrain")
name = "main" if IS_MAIN_PROCESS else "other"
sys.stdout.write(f"{name}: copied {num_copies[0] > 0}, waited {waits}\\n")  # one write: the lines of ranks do not mix
"""


@pytest.mark.drill
def test_other_ranks_copy_nothing_and_train_during_a_write(settings: list[str], tmp_path: Path) -> None:
    """Both ranks take part in every step, so two more steps need both."""
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    more = ["train.micro_batch_size=2", "train.save_steps=3", "train.eval_steps=6", "train.preflight=false"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    ended = subprocess.run(
        [*command, str(tmp_path / "run"), *settings, *more],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "main: copied True, waited [True]" in ended.stdout
    assert "other: copied False, waited []" in ended.stdout


def test_what_is_left_of_a_removed_checkpoint_does_not_end_the_run(tmp_path: Path) -> None:
    checkpoint, left = tmp_path / "step-000001", tmp_path / ".step-000001.removed"
    for folder in (checkpoint, left):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    files.remove_folder(checkpoint)
    assert list(tmp_path.iterdir()) == []
