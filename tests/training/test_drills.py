"""Drills: a run that is killed fifty times, and a disk that becomes full during a run."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Ended, sets, subprocess_command
from safetensors.torch import load_file

from signllava_cli.model.checkpoint import find_damage

Command = Callable[..., Ended]
KILLS = 50


def assert_same_end(expected: Path, run: Path) -> None:
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        expected_tensors, tensors = load_file(expected / "last" / file), load_file(run / "last" / file)
        assert all(torch.equal(expected_tensors[name], tensors[name]) for name in expected_tensors), file
    assert (expected / "last").resolve().name == (run / "last").resolve().name


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a run that is killed often ends with the weights of an uninterrupted one")
@pytest.mark.timeout(3600)
def test_a_run_killed_fifty_times_ends_with_the_weights_of_an_uninterrupted_run(
    signllava: Command, settings: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Half of the kills come during the write of a checkpoint, the others at random times."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    common = [*settings, "train.max_steps=400", "train.save_steps=1", "train.eval_steps=150"]
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={uninterrupted}"])).code == 0
    num_kills_during_save = 0
    for kill in range(KILLS):
        process = subprocess_command(*command, *sets([*common, f"run.output_dir={killed}"]))
        old_folders = set(killed.glob("step-*")) if killed.exists() else set()
        while not (set(killed.glob("step-*")) - old_folders):  # until the run writes its next checkpoint
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)
        time.sleep(random.random() * 0.3)
        while kill % 2 and not list(killed.glob("step-*.tmp")):
            assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        num_kills_during_save += bool(list(killed.glob("step-*.tmp")))
        assert all(find_damage(checkpoint) is None for checkpoint in killed.glob("step-??????"))
    assert num_kills_during_save > KILLS / 10
    record_property("kills", KILLS)
    record_property("kills during a save", num_kills_during_save)
    ended = signllava(*command, *sets([*common, f"run.output_dir={killed}"]))
    assert ended.code == 0, ended.err
    assert_same_end(uninterrupted, killed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_damages_no_saved_checkpoint(
    signllava: Command, settings: list[str], tmp_path: Path, small_disk: Path
) -> None:
    uninterrupted, run = tmp_path / "uninterrupted", small_disk / "run"
    common = [*settings, "train.max_steps=30", "train.save_steps=1", "train.eval_steps=50"]
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={uninterrupted}"])).code == 0
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=50"]))
    assert ended.code == 2
    assert "cannot be written" in ended.err
    checkpoints = sorted(run.glob("step-??????"))
    assert len(checkpoints) > 3
    assert all(find_damage(checkpoint) is None for checkpoint in checkpoints)
    assert (run / "last").resolve() == checkpoints[-1].resolve()
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=2"]))
    assert ended.code == 2, "the preflight finds the full disk before the first step"
    assert "cannot be written" in ended.err
    for checkpoint in checkpoints[:4]:
        subprocess.run(["rm", "-r", str(checkpoint)], check=True)
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=2"]))
    assert ended.code == 0, ended.err
    assert_same_end(uninterrupted, run)
