"""`prepare link`: shards of our layout are used where they lie; nothing real is ever replaced."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from conftest import Ended
from test_pack import Arrays, annotate, arrays, assert_packed, assert_refused, dataset, npy_folder, pack

Command = Callable[..., Ended]


def write_hdf5(file: Path, content: Arrays) -> Path:
    with h5py.File(file, "w") as handle:
        for name, array in content.items():
            handle[name] = array.astype(np.float16)
    return file


def link(signllava: Command, data: Path, *words: object) -> Ended:
    return signllava("prepare", "link", *words, "--stream", "mae", "--out", data, "--split", "train")


def by_recording(content: Arrays, *recordings: str) -> Arrays:
    return {name: array for name, array in content.items() if name.split("/")[0] in recordings}


def test_linked_shards_read_like_packed_ones(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    one = write_hdf5(tmp_path / "How2Sign-mae.hdf5", by_recording(content, "rec0", "rec2"))
    two = write_hdf5(tmp_path / "x", by_recording(content, "rec1") | {"dev0/c": np.ones((2, 4))})
    ended = link(signllava, data, one, two)
    assert ended.code == 0, ended.err
    assert "linked 2 files" in ended.out
    assert "1 recordings in them are not in annotation.train.json" in ended.out
    assert "warning" not in ended.out
    assert_packed(data, content)
    assert (data / "mae/mae.train.0.h5").readlink() == one.resolve()


def test_recordings_without_a_file_and_files_without_a_recording_are_named(
    signllava: Command, tmp_path: Path
) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    other = write_hdf5(tmp_path / "dev.h5", {"dev0/c": np.ones((2, 4))})
    assert_refused(link(signllava, data, other), "None of the 1 files holds a recording of split train", "dev0")
    one = write_hdf5(tmp_path / "one.h5", by_recording(content, "rec1"))
    ended = link(signllava, data, other, one)
    assert ended.code == 0, ended.err
    assert "2 of 3 annotated recordings are in none of the files (rec0, rec2)" in ended.out
    assert f"1 files hold no recording of split train and are not linked ({other})" in ended.out
    assert_packed(data, by_recording(content, "rec1"))


def test_what_is_not_our_layout_is_refused_by_name(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    whole = write_hdf5(tmp_path / "whole.h5", content)
    twice = write_hdf5(tmp_path / "twice.h5", by_recording(content, "rec2"))
    flat = write_hdf5(tmp_path / "flat.h5", {"clip": np.ones((2, 4))})
    (tmp_path / "text.h5").write_text("text")
    assert_refused(link(signllava, data, whole, twice), "rec2 stands in", "whole.h5", "twice.h5")
    assert_refused(link(signllava, data, whole, whole), "rec0 stands in")
    assert_refused(link(signllava, data, flat), "flat.h5 has clip at its top level", "prepare pack", "--key")
    assert_refused(link(signllava, data, tmp_path / "text.h5"), "text.h5 is no whole HDF5 file")
    assert_refused(link(signllava, data, tmp_path / "nowhere.h5"), "nowhere.h5")
    assert not (data / "mae").exists()


def test_overwrite_replaces_links_alone(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    parts = [write_hdf5(tmp_path / f"{n}.h5", by_recording(content, f"rec{n}")) for n in range(3)]
    assert link(signllava, data, *parts).code == 0
    whole = write_hdf5(tmp_path / "whole.h5", content)
    assert_refused(link(signllava, data, whole), "mae.train.0.h5", "--overwrite")
    assert link(signllava, data, whole, "--overwrite").code == 0
    assert sorted(file.name for file in (data / "mae").glob("*.h5")) == ["mae.train.0.h5"]
    assert_packed(data, content)
    assert all(part.exists() for part in parts)


def test_real_files_stay(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    whole = write_hdf5(tmp_path / "whole.h5", content)
    (data / "mae").mkdir()
    metadata = data / "mae/metadata_mae.train.json"
    metadata.write_text(json.dumps({"rec0": "H2S"}))  # of shards with other names
    assert_refused(link(signllava, data, whole, "--overwrite"), "metadata_mae.train.json is no link")
    metadata.unlink()
    assert pack(signllava, data, npy_folder(tmp_path / "source", content)).code == 0
    assert_refused(link(signllava, data, whole, "--overwrite"), "mae.train.0.h5")
    assert_packed(data, content)


def test_pack_overwrites_a_link_and_not_what_it_points_at(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    whole = write_hdf5(tmp_path / "whole.h5", content)
    before = whole.read_bytes()
    assert link(signllava, data, whole).code == 0
    assert_refused(pack(signllava, data, source), "mae.train.0.h5", "--overwrite")
    assert pack(signllava, data, source, "--overwrite").code == 0
    assert not (data / "mae/mae.train.0.h5").is_symlink()
    assert whole.read_bytes() == before


def test_names_with_odd_characters(signllava: Command, tmp_path: Path) -> None:
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
    whole = write_hdf5(tmp_path / "whole.h5", content)
    assert link(signllava, data, whole).code == 0
    ended = link(signllava, data, data / "mae/mae.train.0.h5", "--overwrite")
    assert ended.code == 0, ended.err
    assert (data / "mae/mae.train.0.h5").readlink() == whole.resolve()
    assert_packed(data, content)
