"""One optimizer step is the same step however it is divided into micro-batches; test_launchers has the ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ALL_TASKS, Ended, sets

COMMON = [*ALL_TASKS, "train.batch_size=8", "train.label_smoothing=0.1", "train.eval_steps=4", "train.max_steps=4"]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


@pytest.fixture
def reference(signllava: Callable[..., Ended], settings: list[str], tmp_path: Path) -> list[float]:
    run = tmp_path / "reference"
    arguments = sets([*settings, *COMMON, "train.micro_batch_size=8", f"run.output_dir={run}"])
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
    return losses(run)


def test_micro_batches_make_the_same_step(
    signllava: Callable[..., Ended], settings: list[str], tmp_path: Path, reference: list[float]
) -> None:
    for micro in (4, 1):
        run = tmp_path / f"micro{micro}"
        arguments = sets([*settings, *COMMON, f"train.micro_batch_size={micro}", f"run.output_dir={run}"])
        assert signllava("pretrain", "-r", "toy/tiny_pretrain", *arguments).code == 0
        assert losses(run) == pytest.approx(reference, rel=1e-5)
