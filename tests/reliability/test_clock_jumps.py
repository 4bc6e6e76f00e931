"""The clock of the machine jumps by hours, forth and back, again and again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets, subprocess_command
from faults import FaultedCommands, Faults

pytest_plugins = ["fault_fixtures"]
Command = Callable[..., Ended]
PROMISE = pytest.mark.reliability("Faults", "a clock that jumps by hours changes nothing")
HOURS, EVERY = 3 * 3600, 5
FILES = ("projector.safetensors", "resume/optimizer.safetensors")


def assert_same_weights(expected: Path, run: Path) -> None:
    for file in FILES:
        assert (expected / "last" / file).read_bytes() == (run / "last" / file).read_bytes(), file


@PROMISE
@pytest.mark.drill
def test_a_run_of_at_most_an_hour_takes_all_its_steps(
    commands: FaultedCommands, settings: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    words = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.max_hours=1"])]
    commands.faults.set(jump=HOURS, jump_every=EVERY)
    ran = commands(*words)
    assert ran.code == 0, ran.out
    num_jumps = commands.faults.num_clock_reads() // EVERY
    assert num_jumps > 10
    commands.faults.set()
    assert commands(*words, *sets([f"run.output_dir={tmp_path / 'expected'}"])).code == 0
    assert_same_weights(tmp_path / "expected", tmp_path / "run")
    record_property("jumps", num_jumps)


@PROMISE
@pytest.mark.drill
def test_two_ranks_take_all_their_steps(
    faults: Faults, settings: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    faults.set(jump=HOURS, jump_every=EVERY)
    more = ["train.max_hours=1", "train.micro_batch_size=2", "data.num_workers=1"]
    words = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]), "--launch", "multi_cpu"]
    process = subprocess_command(*words, env=faults.environment)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert os.readlink(tmp_path / "run" / "last") == "step-000006"
    record_property("jumps", faults.num_clock_reads() // EVERY)


@PROMISE
def test_an_index_does_not_depend_on_the_time(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    """Files from the future, and an index that is older than its files, as after a correction of the clock."""
    data = Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))
    for file in data.rglob("*.*"):
        os.utime(file, (4e9, 4e9))
    command = ["prepare", "index", data, "--split", "dev"]
    assert "indexing split dev" in signllava(*command).out
    os.utime(data / "index.dev.arrow", (1, 1))
    assert "indexing split" not in signllava(*command).out
    os.utime(data / "annotation.dev.json", (3e9, 3e9))  # back, but still in the future
    assert "annotation.dev.json has changed" in signllava(*command).out
