"""One optimiser step is the same step however it is divided: micro-batches, ranks, workers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ALL_TASKS, Ended, sets

from signllava_cli.recipe import shipped_folder

COMMON = [*ALL_TASKS, "train.batch_size=8", "train.label_smoothing=0.1", "train.eval_every=4", "train.max_steps=4"]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


@pytest.fixture
def reference(signllava: Callable[..., Ended], settings: list[str], tmp_path: Path) -> list[float]:
    run = tmp_path / "reference"
    arguments = sets([*settings, *COMMON, "train.micro_batch_size=8", f"run.folder={run}"])
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
    return losses(run)


def test_micro_batches_make_the_same_step(
    signllava: Callable[..., Ended], settings: list[str], tmp_path: Path, reference: list[float]
) -> None:
    for micro in (4, 1):
        run = tmp_path / f"micro{micro}"
        arguments = sets([*settings, *COMMON, f"train.micro_batch_size={micro}", f"run.folder={run}"])
        assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
        assert losses(run) == pytest.approx(reference, rel=1e-5)


@pytest.mark.parametrize("way", ["accelerate launch", "--launch"])
def test_two_ranks_make_the_same_step(settings: list[str], tmp_path: Path, reference: list[float], way: str) -> None:
    run = tmp_path / "ranks"
    arguments = ["pretrain", "-r", "toy/tiny_pretrain"]
    arguments += sets([*settings, *COMMON, "train.micro_batch_size=2", "data.workers=3", f"run.folder={run}"])
    if way == "--launch":
        command = [sys.executable, "-m", "signllava_cli", *arguments, "--launch", "multi_cpu"]
    else:
        profile = str(shipped_folder("accelerate_configs") / "multi_cpu.yaml")
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", profile]
        command = [*launcher, "-m", "signllava_cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "distributed type MULTI_CPU, ranks 2" in ended.stdout
    assert losses(run) == pytest.approx(reference, rel=1e-5)
    assert ended.stdout.count("is at its end") == 1
