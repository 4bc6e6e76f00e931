"""Loader workers leave signals to the main process, and a run never waits for a batch that cannot come."""

import multiprocessing.queues
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import sets, subprocess_command
from torch.utils.data import DataLoader, Dataset

from signllava_cli.data.loader_workers import init_worker, report_killed_workers
from signllava_cli.errors import UserError

NUMBERS = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)


@pytest.fixture
def restored() -> Iterator[None]:
    """What `init_worker` changes in this process is restored."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    hook = multiprocessing.queues.Queue._on_queue_feeder_error  # type: ignore[attr-defined]
    yield
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(hook)  # type: ignore[attr-defined]
    for number, handler in before.items():
        signal.signal(number, handler)


def test_loader_workers_leave_signals_to_the_main_process(restored: None) -> None:
    init_worker(0)
    assert [signal.getsignal(number) for number in NUMBERS] == [signal.SIG_IGN] * 3


class Unsendable(Dataset[object]):
    """Its items cannot be pickled."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> object:
        return threading.Lock()


def test_a_batch_that_cannot_be_sent_ends_the_run() -> None:
    """multiprocessing drops it, and the loader would wait for it for ever: e.g. when /dev/shm is full."""
    loader = DataLoader(Unsendable(), num_workers=1, collate_fn=lambda items: items, worker_init_fn=init_worker)
    with pytest.raises(UserError, match="A worker process that reads clips was ended"), report_killed_workers():
        list(loader)


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_a_long_temporary_folder_is_no_problem(settings: list[str], tmp_path: Path) -> None:
    """Tensors go through sockets, whose paths have at most 107 bytes."""
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    short = ["train.max_steps=1", "data.num_workers=1", "train.preflight=false", f"run.output_dir={tmp_path / 'run'}"]
    words = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *short])]
    process = subprocess_command(*words, env={**os.environ, "TMPDIR": str(folder)})
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert (tmp_path / "run" / "last").exists()
