"""`prepare link` uses existing shards without a copy; regular files are never replaced."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended
from test_pack import Arrays, annotate, arrays, assert_packed, assert_refused, dataset, npy_folder, pack

Command = Callable[..., Ended]


def write_hdf5(file: Path, content: Arrays) -> Path:
    with h5py.File(file, "w") as handle:
        for name, array in content.items():
            handle[name] = array.astype(np.float16)
    return file


def link(signllava: Command, data: Path, *args: object) -> Ended:
    return signllava("prepare", "link", *args, "--stream", "mae", "--out", data, "--split", "train")


def by_recording(content: Arrays, *recordings: str) -> Arrays:
    return {name: array for name, array in content.items() if name.split("/")[0] in recordings}


def test_linked_shards_read_like_packed_ones(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    first = write_hdf5(tmp_path / "How2Sign-mae.hdf5", by_recording(content, "rec0", "rec2"))
    second = write_hdf5(tmp_path / "x", by_recording(content, "rec1") | {"dev0/c": np.ones((2, 4))})
    result = link(signllava, data, first, second)
    assert result.code == 0, result.err
    assert "linked 2 files" in result.out
    assert "1 recording in them is not in annotation.train.json and ignored" in result.out
    assert "warning" not in result.out
    assert_packed(data, content)
    assert (data / "mae/mae.train.0.h5").readlink() == first.resolve()


def test_recordings_without_a_file_and_files_without_a_recording_are_named(
    signllava: Command, tmp_path: Path
) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    other = write_hdf5(tmp_path / "dev.h5", {"dev0/c": np.ones((2, 4))})
    assert_refused(link(signllava, data, other), "None of the 1 files holds a recording of split train", "dev0")
    one = write_hdf5(tmp_path / "one.h5", by_recording(content, "rec1"))
    result = link(signllava, data, other, one)
    assert result.code == 0, result.err
    assert "2 of 3 annotated recordings are in none of the files (rec0, rec2)" in result.out
    assert f"not linked: 1 file holds no recording of split train ({other})" in result.out
    assert_packed(data, by_recording(content, "rec1"))


def test_files_of_another_layout_are_refused_by_name(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    complete = write_hdf5(tmp_path / "complete.h5", content)
    twice = write_hdf5(tmp_path / "twice.h5", by_recording(content, "rec2"))
    flat = write_hdf5(tmp_path / "flat.h5", {"clip": np.ones((2, 4))})
    (tmp_path / "text.h5").write_text("text")
    assert_refused(link(signllava, data, complete, twice), "rec2 is in", "complete.h5", "twice.h5")
    assert_refused(link(signllava, data, complete, complete), "rec0 is in")
    assert_refused(link(signllava, data, flat), "flat.h5 has clip at its top level", "prepare pack", "--key")
    assert_refused(link(signllava, data, tmp_path / "text.h5"), "text.h5 is not a valid HDF5 file")
    assert_refused(link(signllava, data, tmp_path / "nowhere.h5"), "nowhere.h5")
    assert not (data / "mae").exists()


@pytest.mark.parametrize("error", [ValueError("bad\nsymbol table"), MemoryError("bad\nsymbol table")])
def test_any_error_of_hdf5_is_one_line(
    signllava: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    data, file = dataset(tmp_path / "data", arrays()), write_hdf5(tmp_path / "complete.h5", arrays())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(h5py.File, "__iter__", fail)
    assert_refused(link(signllava, data, file), "complete.h5 is not a valid HDF5 file (bad); copy it again.")


def test_overwrite_replaces_only_links(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    parts = [write_hdf5(tmp_path / f"{n}.h5", by_recording(content, f"rec{n}")) for n in range(3)]
    assert link(signllava, data, *parts).code == 0
    complete = write_hdf5(tmp_path / "complete.h5", content)
    assert_refused(link(signllava, data, complete), "mae.train.0.h5", "--overwrite")
    assert link(signllava, data, complete, "--overwrite").code == 0
    assert sorted(file.name for file in (data / "mae").glob("*.h5")) == ["mae.train.0.h5"]
    assert_packed(data, content)
    assert all(part.exists() for part in parts)


def test_regular_files_are_not_replaced(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    complete = write_hdf5(tmp_path / "complete.h5", content)
    (data / "mae").mkdir()
    metadata = data / "mae/metadata_mae.train.json"
    metadata.write_text(json.dumps({"rec0": "H2S"}))  # of shards with other names
    assert_refused(link(signllava, data, complete, "--overwrite"), "metadata_mae.train.json is not a link")
    metadata.unlink()
    assert pack(signllava, data, npy_folder(tmp_path / "source", content)).code == 0
    assert_refused(link(signllava, data, complete, "--overwrite"), "mae.train.0.h5")
    assert_packed(data, content)


def test_pack_overwrites_a_link_and_not_its_target(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    complete = write_hdf5(tmp_path / "complete.h5", content)
    before = complete.read_bytes()
    assert link(signllava, data, complete).code == 0
    assert_refused(pack(signllava, data, source), "mae.train.0.h5", "--overwrite")
    assert pack(signllava, data, source, "--overwrite").code == 0
    assert not (data / "mae/mae.train.0.h5").is_symlink()
    assert complete.read_bytes() == before


def test_names_may_hold_any_characters(signllava: Command, tmp_path: Path) -> None:
    content = {"réc 1.a/cl ip.0": np.ones((2, 4), np.float32), "-x[0]/é": np.zeros((3, 4), np.float32)}
    data = dataset(tmp_path / "da ta", content)
    assert pack(signllava, data, npy_folder(tmp_path / "source", content)).code == 0
    assert_packed(data, content)
    linked = annotate(tmp_path / "linked", {"réc 1.a": ["cl ip.0"], "-x[0]": ["é"]})
    assert link(signllava, linked, data / "mae/mae.train.0.h5").code == 0
    assert_packed(linked, content)


def test_links_may_be_linked_again(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    complete = write_hdf5(tmp_path / "complete.h5", content)
    assert link(signllava, data, complete).code == 0
    result = link(signllava, data, data / "mae/mae.train.0.h5", "--overwrite")
    assert result.code == 0, result.err
    assert (data / "mae/mae.train.0.h5").readlink() == complete.resolve()
    assert_packed(data, content)


def test_the_same_command_again_changes_nothing(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    parts = [write_hdf5(tmp_path / f"{n}.h5", by_recording(content, f"rec{n}")) for n in range(3)]
    assert link(signllava, data, *parts).code == 0
    before = {file: file.lstat().st_mtime_ns for file in (data / "mae").iterdir()}
    for options in ([], ["--overwrite"]):
        again = link(signllava, data, *parts, *options)
        assert again.code == 0, again.err
        assert "nothing changed: the same 3 files are linked as stream mae of split train: 3 recordings" in again.out
        assert {file: file.lstat().st_mtime_ns for file in (data / "mae").iterdir()} == before
    assert_refused(link(signllava, data, *reversed(parts)), "mae.train.0.h5", "--overwrite")
    assert_refused(link(signllava, data, *parts[:2]), "mae.train.0.h5", "--overwrite")
