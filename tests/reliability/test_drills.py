"""Drills: a run that is killed fifty times, and a disk that becomes full during a run."""

import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Ended, sets
from faults import FaultedCommands
from safetensors.torch import load_file

from signllava_cli.model.checkpoint import find_damage

pytest_plugins = ["fault_fixtures"]
Command = Callable[..., Ended]
pytestmark = pytest.mark.timeout(1800)
KILLS = 50


def assert_same_end(expected: Path, run: Path) -> None:
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        expected_tensors, tensors = load_file(expected / "last" / file), load_file(run / "last" / file)
        assert all(torch.equal(expected_tensors[name], tensors[name]) for name in expected_tensors), file
    assert (expected / "last").resolve().name == (run / "last").resolve().name


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a run that is killed often ends with the weights of an uninterrupted one")
def test_a_run_killed_fifty_times_ends_with_the_weights_of_an_uninterrupted_run(
    commands: FaultedCommands, settings: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each kill comes at some call that changes a file: of the log, of the metrics, or of a checkpoint."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    common = [*settings, "train.max_steps=100", "train.save_steps=1", "train.eval_steps=40", "train.preflight=false"]
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert commands(*command, *sets([*common, f"run.output_dir={uninterrupted}"])).code == 0
    rng, num_kills_during_save = random.Random(0), 0
    for _ in range(KILLS):
        call = rng.randint(20, 110)  # a start makes about 25 such calls, and a step about 35
        commands.faults.set(prefix=killed, first=call, last=call)
        ran = commands(*command, *sets([*common, f"run.output_dir={killed}"]))
        assert ran.code == -signal.SIGKILL, ran.out
        num_kills_during_save += bool(list(killed.glob("step-*.tmp")))
        assert all(find_damage(checkpoint) is None for checkpoint in killed.glob("step-??????"))
    assert num_kills_during_save > KILLS / 10
    record_property("kills", KILLS)
    record_property("kills during a save", num_kills_during_save)
    commands.faults.set()
    ran = commands(*command, *sets([*common, f"run.output_dir={killed}"]))
    assert ran.code == 0, ran.out
    assert 10 < int(re.findall(r"resumed from .* at step (\d+)", ran.out)[0]) < 100
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


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a disk that is full at any write of a training run loses nothing that was saved")
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
