"""A damaged HDF5 file that crashes the HDF5 library costs its clips, not the command or the web app.

`cases/hdf5/crash-1` is a damaged shard that fuzzing found: with HDF5 2.0.0, reading `rec/b` is a segmentation fault.
`endless-1` has an attribute from which the library never returns.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import subprocess_command
from fuzzing import CASES

from signllava_cli import processes
from signllava_cli.data.clip_source import ClipSource
from signllava_cli.data.shard import StoredClip, list_shard
from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.errors import UserError
from signllava_cli.prepare import indexing
from signllava_cli.prepare.indexing import open_index
from signllava_cli.prepare.pack.shard_writer import Shard, write_shard
from signllava_cli.prepare.validation.shard_reader import read_shards
from signllava_cli.processes import call_in_child
from signllava_cli.serving.uploads import read_uploads

PROMISE = pytest.mark.reliability("Bad input", "a file that crashes the HDF5 library, or never ends, costs its clips")
CRASH, ENDLESS = CASES / "hdf5" / "crash-1", CASES / "hdf5" / "endless-1"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset folder with the annotation of the clips in the two files."""
    clips = {"clip_order": ["a", "b"], "a": {"translation": "One."}, "b": {"translation": "Two."}}
    (tmp_path / "annotation.train.json").write_text(json.dumps({"rec": clips, "other": clips}))
    return tmp_path


@PROMISE
def test_pack_skips_the_clip_and_packs_the_others(data: Path) -> None:
    process = subprocess_command("prepare", "pack", CRASH, "--stream", "mae", "--split", "train", "--out", data)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    report = json.loads((data / "mae/pack.mae.train.json").read_text())
    assert list(report["faulty"]) == ["rec/b"]
    assert "reading it crashes a process (SIGSEGV)" in report["faulty"]["rec/b"]
    assert report["clips_packed"] == 3
    with h5py.File(data / "mae/mae.train.0.h5") as shard:
        assert [*shard["rec"], *shard["other"]] == ["a", "a", "b"]
    assert not list(data.rglob("*.tmp"))


@PROMISE
def test_check_names_the_shard(tmp_path: Path) -> None:
    (tmp_path / "good.h5").touch()
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["rec/a"] = [[1.0]]
    facts = read_shards([CRASH, tmp_path / "good.h5"], 1, fast=False)
    assert facts[CRASH].error.endswith("it is damaged: reading it crashes a process (SIGSEGV)")
    assert [array.clip for array in facts[tmp_path / "good.h5"].arrays] == ["a"]


@PROMISE
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.drill)])
def test_the_index_of_a_shard_from_which_hdf5_never_returns_is_an_error(
    data: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 1.0)
    monkeypatch.setattr(indexing, "MIN_CLIPS_FOR_POOL", 0)
    (data / "mae").mkdir()
    (data / "mae/metadata_mae.train.json").write_text(json.dumps({"rec": 0}))
    shutil.copy(ENDLESS, data / "mae/mae.train.0.h5")
    h5py.File(data / "mae/mae.train.1.h5", "w").close()
    (data / "mae/metadata_mae.train.json").write_text(json.dumps({"rec": 0, "other": 1}))
    with pytest.raises(UserError, match=r"mae\.train\.0\.h5: it is damaged: reading it takes more than 1 s"):
        open_index(data, "train", {"mae": DefaultLocation()}, workers)


def burn(seconds: float) -> None:
    """Use so much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.drill
def test_the_time_limit_of_an_index_is_for_a_clip(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of a million clips takes minutes, and is not damaged."""
    (data / "mae").mkdir()
    (data / "mae/metadata_mae.train.json").write_text(json.dumps({"rec": 0, "other": 0}))
    with h5py.File(data / "mae/mae.train.0.h5", "w") as shard:
        for clip in ("rec/a", "rec/b", "other/a", "other/b"):
            shard[clip] = np.zeros((2, 4), np.float16)

    def list_slowly(file: Path) -> Iterator[StoredClip]:
        for stored in list_shard(file):
            burn(0.7)
            yield stored

    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 1.0)
    monkeypatch.setattr(indexing, "list_shard", list_slowly)
    assert open_index(data, "train", {"mae": DefaultLocation()}).frame_counts("mae").tolist() == [2, 2, 2, 2]


@pytest.mark.drill
def test_the_time_limit_of_packing_is_for_a_clip_of_any_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays of other formats, read after one of HDF5, are no endless HDF5."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros((2, 4), np.float16)
    clips = {"rec/a": ClipSource(tmp_path / "a.h5", "hdf5", "a")}
    for name in ("b", "c", "d"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 4), np.float16))
        clips[f"rec/{name}"] = ClipSource(tmp_path / f"{name}.npy", "npy")
    out = tmp_path / "shard.h5"

    def write(before_file: object) -> None:
        write_shard(Shard(out, clips, width=4), out, after_clip=lambda: burn(0.7))

    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 1.0)
    call_in_child(write)
    with h5py.File(out) as shard:
        assert [*shard["rec"]] == ["a", "b", "c", "d"]


@PROMISE
def test_an_upload_does_not_end_the_web_app() -> None:
    with pytest.raises(UserError, match=r"^my\.h5: it is damaged: reading it crashes a process \(SIGSEGV\)"):
        read_uploads([("my.h5", CRASH)], {"mae": 4}, 2**20)
