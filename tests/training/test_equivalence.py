"""An optimizer step does not depend on the size of its micro-batches; test_launchers.py tests the ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ALL_TASKS, Ended, sets

COMMON = [*ALL_TASKS, "train.batch_size=8", "train.label_smoothing=0.1", "train.eval_steps=4", "train.max_steps=4"]


def read_losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


@pytest.fixture
def reference(signllava: Callable[..., Ended], settings: list[str], tmp_path: Path) -> list[float]:
    run = tmp_path / "reference"
    arguments = sets([*settings, *COMMON, "train.micro_batch_size=8", f"run.output_dir={run}"])
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
    return read_losses(run)


def test_losses_do_not_depend_on_the_micro_batch_size(
    signllava: Callable[..., Ended], settings: list[str], tmp_path: Path, reference: list[float]
) -> None:
    for micro_batch_size in (4, 1):
        run = tmp_path / f"micro{micro_batch_size}"
        arguments = sets([*settings, *COMMON, f"train.micro_batch_size={micro_batch_size}", f"run.output_dir={run}"])
        assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
        assert read_losses(run) == pytest.approx(reference, rel=1e-5)
