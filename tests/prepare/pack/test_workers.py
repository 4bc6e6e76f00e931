"""A forked worker may use HDF5, but not torch after its threads have run; so `prepare pack` spawns its workers."""

import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import subprocess_command
from h5py._objects import phil
from safetensors.torch import save_file
from test_pack import annotate

from signllava_cli.processes import submit_all


def read_sum(file: Path) -> float:
    with h5py.File(file, "r") as handle:
        return float(handle["a"][()].sum())


def test_forked_workers_read_hdf5_while_the_parent_does(tmp_path: Path) -> None:
    """The parent has a file open, and one of its threads holds h5py's lock when the workers start."""
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as handle:
        handle["a"] = np.ones(1000)
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with phil:
            is_held.set()
            release.wait(0.5)

    with h5py.File(file, "r") as handle:
        thread = threading.Thread(target=hold)
        thread.start()
        is_held.wait()
        with submit_all(read_sum, [(file,)] * 4, 2) as jobs:
            assert [job.result(timeout=30) for job in jobs] == [1000.0] * 4
        thread.join()
        assert handle["a"][0] == 1


@pytest.mark.drill
def test_workers_read_bfloat16_after_the_parent_did(tmp_path: Path) -> None:
    """torch reads bfloat16, and its OpenMP threads hang in a process that was forked after they had run."""
    clips = [f"c{number}" for number in range(4)]
    data = annotate(tmp_path / "data", {clip: [clip] for clip in clips})
    (tmp_path / "source").mkdir()
    for clip in clips:
        save_file({"f": torch.ones(3000, 768, dtype=torch.bfloat16)}, tmp_path / f"source/{clip}.safetensors")
    args = [tmp_path / "source", "--stream", "mae", "--out", data, "--split", "train", "--shard-mb", 0]
    process = subprocess_command(
        "prepare", "pack", *args, "--workers", 2, env=os.environ | {"OMP_NUM_THREADS": "2"}, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert "4 of 4 clips" in out
