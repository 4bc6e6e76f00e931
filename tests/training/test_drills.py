"""Drills: fifty kills of one run, and a disk that fills up under it."""

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


def assert_same_end(one: Path, other: Path) -> None:
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        ours, theirs = load_file(one / "last" / file), load_file(other / "last" / file)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), file
    assert (one / "last").resolve().name == (other / "last").resolve().name


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_fifty_kills_end_in_the_weights_of_the_uninterrupted_run(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """Half of them as soon as a checkpoint is being written, the others at any moment."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = [*settings, "train.max_steps=400", "train.save_steps=1", "train.eval_steps=150"]
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={whole}"])).code == 0
    during_a_save = 0
    for kill in range(KILLS):
        process = subprocess_command(*command, *sets([*common, f"run.output_dir={killed}"]))
        seen = set(killed.glob("step-*")) if killed.exists() else set()
        while not (set(killed.glob("step-*")) - seen):  # under way
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)
        time.sleep(random.random() * 0.3)
        while kill % 2 and not list(killed.glob("step-*.tmp")):
            assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        during_a_save += bool(list(killed.glob("step-*.tmp")))
        assert all(find_damage(checkpoint) is None for checkpoint in killed.glob("step-??????"))
    assert during_a_save > KILLS / 10
    ended = signllava(*command, *sets([*common, f"run.output_dir={killed}"]))
    assert ended.code == 0, ended.err
    assert_same_end(whole, killed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_loses_nothing_that_was_saved_and_says_so(
    signllava: Command, settings: list[str], tmp_path: Path, small_disk: Path
) -> None:
    whole, run = tmp_path / "whole", small_disk / "run"
    common = [*settings, "train.max_steps=30", "train.save_steps=1", "train.eval_steps=50"]
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={whole}"])).code == 0
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=50"]))
    assert ended.code == 2
    assert "cannot be written" in ended.err
    saved = sorted(run.glob("step-??????"))
    assert len(saved) > 3
    assert all(find_damage(checkpoint) is None for checkpoint in saved)
    assert (run / "last").resolve() == saved[-1].resolve()
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=2"]))
    assert ended.code == 2, "a disk without room is found before the first step"
    assert "cannot be written" in ended.err
    for checkpoint in saved[:4]:
        subprocess.run(["rm", "-r", str(checkpoint)], check=True)
    ended = signllava(*command, *sets([*common, f"run.output_dir={run}", "train.save_total_limit=2"]))
    assert ended.code == 0, ended.err
    assert_same_end(whole, run)
