"""The time that a step waits for data counts in metrics.jsonl and in the dry run's estimate."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, sets

from signllava_cli.data.split import Split

Command = Callable[..., Ended]
SECONDS = 0.6  # minimum time to read a micro-batch


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the training split takes `SECONDS`, in this process and in the loader workers that it forks."""
    read_all = Split.read_all

    def read_slowly(split: Split, clips: Sequence[Any]) -> Any:
        time.sleep(SECONDS if split.name == "train" else 0)
        return read_all(split, clips)

    monkeypatch.setattr(Split, "read_all", read_slowly)


@pytest.mark.usefixtures("slow_disk")
def test_metrics_count_the_wait_for_data(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    more = ["train.max_steps=1", "train.preflight=false", "train.micro_batch_size=2"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    state = json.loads((tmp_path / "run" / "last" / "progress.json").read_text())
    assert line["data_wait_seconds"] >= 2 * SECONDS  # two micro-batches
    assert state["tokens"] / line["tokens_per_second"] > line["data_wait_seconds"]
    assert state["seconds"] > state["data_wait_seconds"] >= 2 * SECONDS
    assert re.search(r"after 1 step and [0-9]+ s of steps, [0-9]+ s of them waiting for data", ended.out)


@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.drill)])
def test_the_hours_of_a_dry_run_include_the_wait_for_data(
    signllava: Command, settings: list[str], workers: int
) -> None:
    """Also when workers have prefetched batches, which cover only the first steps."""
    steps, speedup = 36_000, workers or 1
    more = [f"train.max_steps={steps}", f"data.num_workers={workers}", f"train.eval_steps={steps}"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", "--dry-run", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    hours = re.search(r"│ training +│ +([0-9.]+) h │", ended.out)
    share = re.search(r"│ of this, waiting for data +│ +([0-9]+) % │", ended.out)
    assert hours
    assert share
    min_hours = SECONDS * steps / 3600 / speedup
    if workers:  # at most a third of the timed batches were prefetched
        assert float(hours[1]) > 0.6 * min_hours
    else:  # the timed steps may have more tokens than the mean step
        assert float(hours[1]) * int(share[1]) / 100 > 0.75 * min_hours
