"""`prepare pack` stores the arrays of other tools unchanged, and names every clip that it skips."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Ended
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from signllava_cli.prepare.pack.stream_paths import StreamPaths

Command = Callable[..., Ended]
Arrays = dict[str, np.ndarray]


def annotate(root: Path, clips_of: Mapping[str, Sequence[str]]) -> Path:
    """A dataset folder that holds only an annotation of split train."""
    content = {
        recording: {"clip_order": list(clips), **{clip: {"translation": "Hello."} for clip in clips}}
        for recording, clips in clips_of.items()
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotation.train.json").write_text(json.dumps(content))
    return root


def arrays(recordings: int = 3, clips: int = 4, frames: int = 5, width: int = 4) -> Arrays:
    """`recording/clip` -> random float32 (frames + 0..2, width)."""
    rng = np.random.default_rng(0)
    names = [f"rec{r}/r{r}c{c}" for r in range(recordings) for c in range(clips)]
    return {
        name: rng.normal(size=(frames + number % 3, width)).astype(np.float32) for number, name in enumerate(names)
    }


def dataset(root: Path, content: Arrays) -> Path:
    """A dataset folder whose annotation names the clips of `content`."""
    clips_of: dict[str, list[str]] = {}
    for name in content:
        recording, clip = name.split("/")
        clips_of.setdefault(recording, []).append(clip)
    return annotate(root, clips_of)


def npy_folder(root: Path, content: Arrays) -> Path:
    for name, array in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", array)
    return root


def pack(signllava: Command, data: Path, *args: object) -> Ended:
    return signllava("prepare", "pack", *args, "--stream", "mae", "--out", data, "--split", "train", "--workers", 1)


def packed(data: Path) -> Arrays:
    """The arrays in the shards that the metadata names."""
    content = {}
    for recording, shard in json.loads((data / "mae/metadata_mae.train.json").read_text()).items():
        with h5py.File(data / f"mae/mae.train.{shard}.h5") as file:
            for clip, array in file[recording].items():
                assert array.dtype == np.float16
                assert array.chunks is None
                content[f"{recording}/{clip}"] = array[()]
    return content


def report(data: Path) -> dict[str, object]:
    return dict(json.loads((data / "mae/pack.mae.train.json").read_text()))


def assert_packed(data: Path, content: Arrays) -> None:
    stored = packed(data)
    assert stored.keys() == content.keys()
    for name, array in content.items():
        np.testing.assert_array_equal(stored[name], array.astype(np.float16))


def assert_refused(result: Ended, *messages: str) -> None:
    assert result.code == 2, result.out + result.err
    assert result.err.startswith("error: ")
    assert len(result.err.strip().splitlines()) == 1, result.err
    for message in messages:
        assert message in result.err


def one_file_per_clip(
    ending: str, save: Callable[[Path, np.ndarray], None], flat: bool
) -> Callable[..., list[object]]:
    def write(root: Path, content: Arrays) -> list[object]:
        for name, array in content.items():
            file = root / (name.split("/")[1] if flat else name)
            file.parent.mkdir(parents=True, exist_ok=True)
            save(file.with_name(file.name + ending), array)
        return [root]

    return write


def hdf5(pattern: str, files: int = 2) -> Callable[..., list[object]]:
    def write(root: Path, content: Arrays) -> list[object]:
        root.mkdir()
        for number, (name, array) in enumerate(content.items()):
            recording, clip = name.split("/")
            with h5py.File(root / f"{number % files}.h5", "a") as file:
                file[pattern.format(recording=recording, clip=clip)] = array
        key = [] if pattern == "{recording}/{clip}" else ["--key", pattern]
        return [*sorted(root.iterdir()), *key]

    return write


def write_hdf5_per_recording(root: Path, content: Arrays) -> list[object]:
    root.mkdir()
    for name, array in content.items():
        recording, clip = name.split("/")
        with h5py.File(root / f"{recording}.h5", "a") as file:
            file[f"clips/{clip}"] = array
    return [root, "--pattern", "{recording}.h5", "--key", "clips/{clip}"]


def write_with_pattern(root: Path, content: Arrays) -> list[object]:
    npy_folder(root / "features", content)
    for file in list(root.rglob("*.npy")):
        file.rename(file.with_suffix(".mae"))
    return [root, "--pattern", "features/{recording}/{clip}.mae", "--format", "npy"]


def write_named_arrays(root: Path, content: Arrays) -> list[object]:
    root.mkdir()
    for name, array in content.items():
        np.savez_compressed(root / f"{name.split('/')[1]}.npz", x=array, y=array[:, :1])
    return [root, "--key", "x"]


SOURCES = {
    "npy": one_file_per_clip(".npy", np.save, flat=False),
    "npy, flat": one_file_per_clip(".npy", np.save, flat=True),
    "npz": one_file_per_clip(".npz", lambda file, array: np.savez(file, array), flat=False),
    "npz of several": write_named_arrays,
    "safetensors": one_file_per_clip(".safetensors", lambda file, array: save_file({"f": array}, file), flat=True),
    "a pattern": write_with_pattern,
    "hdf5 of this layout": hdf5("{recording}/{clip}"),
    "hdf5 by clip": hdf5("{clip}", files=3),
    "hdf5 deep": hdf5("train/{recording}/{clip}/features"),
    "hdf5 a recording": write_hdf5_per_recording,
}


@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_every_source_format_is_packed_unchanged(
    signllava: Command, tmp_path: Path, write: Callable[[Path, Arrays], list[object]]
) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", content)
    result = pack(signllava, data, *write(tmp_path / "source", content))
    assert result.code == 0, result.err
    assert "12 of 12 clips, width 4" in result.out
    assert "warning" not in result.out
    assert_packed(data, content)
    assert report(data)["clips_packed"] == 12


def test_bfloat16_is_read(signllava: Command, tmp_path: Path) -> None:
    tensor = torch.arange(8.0).reshape(2, 4)
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    (tmp_path / "source").mkdir()
    save_torch_file({"f": tensor.bfloat16()}, tmp_path / "source/a.safetensors")
    assert pack(signllava, data, tmp_path / "source").code == 0
    assert_packed(data, {"rec/a": tensor.numpy()})


def test_shards_stay_under_the_bound_and_recordings_are_not_split(signllava: Command, tmp_path: Path) -> None:
    content = arrays(recordings=12, clips=5, frames=20, width=16)
    content |= {"rec5/large": np.ones((9000, 16), np.float32)}
    data = dataset(tmp_path / "data", content)
    result = pack(signllava, data, npy_folder(tmp_path / "source", content), "--shard-mb", 20 / 1024)
    assert result.code == 0, result.err
    assert_packed(data, content)
    shard_of = json.loads((data / "mae/metadata_mae.train.json").read_text())
    assert list(shard_of.values()) == sorted(shard_of.values())
    large_shard = shard_of["rec5"]
    assert list(shard_of.values()).count(large_shard) == 1
    sizes = {number: (data / f"mae/mae.train.{number}.h5").stat().st_size for number in shard_of.values()}
    assert sizes.pop(large_shard) > 9000 * 16 * 2
    assert max(sizes.values()) <= 20 * 1024
    assert len(sizes) < 11


def write_damaged_files(root: Path) -> dict[str, str]:
    """Writes a file with every kind of error; returns clip -> message."""
    good = np.ones((3, 4), np.float32)
    for name, array in {
        "good": good,
        "empty": good[:0],
        "flat": good[0],
        "wide": np.ones((3, 5)),
        "nan": np.where(np.eye(3, 4) > 0, np.nan, good),
        "huge": good * 1e6,
        "text": np.array([["a"]]),
        "yes": np.ones((3, 4), bool),
    }.items():
        np.save(root / f"{name}.npy", array)
    np.save(root / "objects.npy", np.array([{}, None] * 500, dtype=object), allow_pickle=True)
    (root / "cut.npy").write_bytes((root / "good.npy").read_bytes()[:-3])
    (root / "zip.npz").write_bytes(b"PK\3\4")
    np.savez(root / "two.npz", a=good, b=good)
    (root / "tensors.safetensors").write_bytes(b"{}")
    (root / "link.npy").symlink_to(root / "nowhere")
    (root / "labels.pkl").write_bytes(pickle.dumps(good))
    return {
        "empty": "has no frames",
        "flat": "shape (4,), expected (frames, width)",
        "wide": "width 5, but the first clip's is 4",
        "nan": "nan at frame 0",
        "huge": "1000000.0 at frame 0",
        "text": "dtype <U1, expected numbers",
        "yes": "dtype bool, expected numbers",
        "objects": "contains Python objects",
        "cut": "cannot be read",
        "link": "No such file",
        "zip": "cannot be read",
        "two": "has 2 arrays (a, b); name one with --key",
        "tensors": "cannot be read",
        "labels": "a pickle can run code when it is opened",
    }


def test_faulty_and_missing_clips_are_skipped_counted_and_named(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    errors = write_damaged_files(tmp_path / "source")
    data = annotate(tmp_path / "data", {"rec": ["good", *errors, "none"], "gone": ["g"], "bad": ["bad"]})
    np.save(tmp_path / "source/bad.npy", np.zeros((0, 4)))
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["rec/good"]
    assert f"1 of {len(errors) + 4} clips" in result.out
    assert f"warning: {len(errors) + 1} clips are faulty" in result.out
    assert "warning: 2 clips have no file and are skipped (rec/none, gone/g)" in result.out
    pack_report = report(data)
    assert pack_report["missing"] == ["rec/none", "gone/g"]
    reasons = pack_report["faulty"]
    assert isinstance(reasons, dict)
    assert reasons.keys() == {*(f"rec/{clip}" for clip in errors), "bad/bad"}
    for clip, message in errors.items():
        assert message in reasons[f"rec/{clip}"], clip
        assert str(tmp_path / "source" / clip) in reasons[f"rec/{clip}"]
    assert json.loads((data / "mae/metadata_mae.train.json").read_text()) == {"rec": 0}


class TouchWhenUnpickled:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.reliability("Security", "data is never run as code: no pickle, no eval, safe YAML")
def test_no_code_in_a_file_is_run(signllava: Command, tmp_path: Path) -> None:
    source, marker = tmp_path / "source", tmp_path / "marker"
    source.mkdir()
    np.save(source / "good.npy", np.ones((2, 4)))
    np.save(source / "objects.npy", np.array([TouchWhenUnpickled(marker)], dtype=object), allow_pickle=True)
    np.savez(source / "zipped.npz", np.array([TouchWhenUnpickled(marker)], dtype=object))
    (source / "renamed.npy").write_bytes(pickle.dumps(TouchWhenUnpickled(marker)))
    (source / "plain.pickle").write_bytes(pickle.dumps(TouchWhenUnpickled(marker)))
    data = annotate(tmp_path / "data", {"rec": ["good", "objects", "zipped", "renamed", "plain"]})
    assert pack(signllava, data, source).code == 0
    assert list(packed(data)) == ["rec/good"]
    for args in ([source / "plain.pickle"], [source, "--pattern", "{clip}.pickle"]):
        assert_refused(pack(signllava, data, *args), "can run code", "numpy.save")
    assert not marker.exists()


def test_an_ambiguous_clip_is_skipped(signllava: Command, tmp_path: Path) -> None:
    """Clip names that repeat in every recording, and files named by clip alone."""
    frames = np.ones((2, 4), np.float32)
    data = annotate(tmp_path / "data", {"one": ["0", "a"], "two": ["0", "b"]})
    for name in ("one", "two"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["0"], file[{"one": "a", "two": "b"}[name]] = frames, frames
    result = pack(signllava, data, tmp_path / "one.h5", tmp_path / "two.h5", "--key", "{clip}")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["one/a", "two/b"]
    assert "0 is in" in str(report(data)["faulty"])
    npy_folder(tmp_path / "flat", {"0": frames, "a": frames})
    result = pack(signllava, data, tmp_path / "flat", "--overwrite")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["one/a"]
    assert "2 clips are faulty and skipped (one/0, two/0;" in result.out


def test_invalid_arguments_are_refused_in_one_line(signllava: Command, tmp_path: Path) -> None:
    content = arrays(1, 1)
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    (tmp_path / "no.h5").write_bytes(b"text")
    with h5py.File(tmp_path / "yes.h5", "w") as file:
        file["x/y"] = np.ones((2, 4))
    for args, message in {
        (tmp_path / "nowhere",): "No file or folder at",
        (tmp_path / "no.h5",): "no.h5 is not a valid HDF5 file",
        (tmp_path / "yes.h5",): "Nothing to pack: no SOURCE holds a file of any of the 1 annotated clips",
        (tmp_path / "yes.h5", "--key", "x"): "must hold {clip}",
        (tmp_path / "yes.h5", "--pattern", "{clip}.npy"): "no SOURCE is a folder",
        (tmp_path / "yes.h5", "--format", "npy"): "--format npy is read from folders",
        (source, "--pattern", "{clip.__class__}.npy"): "may hold only {recording}, {clip} and columns of the source",
        (source, "--pattern", "{clip"): "--pattern {clip",
        (source, "--pattern", "x.npy"): "must hold {clip}",
        (source, "--pattern", "{clip}.bin"): "--format",
        (source, "--key", "x"): "--key x: none of the files found holds several arrays",
        (source, "--format", "npz"): "Nothing to pack",
    }.items():
        assert_refused(pack(signllava, data, *args), message)
    assert not (data / "mae/metadata_mae.train.json").exists()
    result = signllava("prepare", "pack", source, "--stream", "../x", "--out", data, "--split", "train")
    assert_refused(result, "--stream")
    result = signllava("prepare", "pack", source, "--stream", "mae", "--out", data, "--split", "test")
    assert_refused(result, "No annotation.test.json")


def state(data: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file of the stream."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in (data / "mae").glob("[!.]*")}


def test_a_second_run_has_nothing_to_do(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data = dataset(tmp_path / "data", {**content, "rec0/none": np.ones(1)})
    args = [npy_folder(tmp_path / "source", content), "--shard-mb", 0]
    assert pack(signllava, data, *args).code == 0
    before = state(data)
    assert len(before) == 3 + 3
    result = pack(signllava, data, *args)
    assert result.code == 0
    assert "nothing to do" in result.out
    assert "1 clip has no file and is skipped (rec0/none)" in result.out
    assert state(data) == before


def test_only_a_missing_shard_is_written_again_with_the_same_bytes(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    content["rec1/bad"] = np.zeros((0, 4))
    data = dataset(tmp_path / "data", content)
    args = [npy_folder(tmp_path / "source", content), "--shard-mb", 0]
    assert pack(signllava, data, *args).code == 0
    before, pack_report, shard = state(data), report(data), (data / "mae/mae.train.1.h5").read_bytes()
    for name in ("mae.train.1.h5", "metadata_mae.train.json", "pack.mae.train.json"):
        (data / "mae" / name).unlink()
    stale = data / "mae/mae.train.0.h5.123.tmp"
    stale.write_bytes(b"half")
    result = pack(signllava, data, *args)
    assert result.code == 0, result.err
    assert "writing 1 of 3 shards" in result.out
    assert not stale.exists()
    assert report(data) == pack_report
    assert (data / "mae/mae.train.1.h5").read_bytes() == shard
    after = state(data)
    assert {name for name in before if before[name] == after[name]} == {
        "mae.train.0.h5",
        "mae.train.2.h5",
        "pack.mae.train.plan.json",
    }


def test_other_inputs_are_refused_and_the_differences_named(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    assert pack(signllava, data, source, "--shard-mb", 0).code == 0
    before = state(data)
    assert_refused(pack(signllava, data, source), "shard_mb (0.0, now 1024.0)", "--overwrite")
    np.save(source / "rec0/r0c0.npy", np.zeros((7, 4)))
    assert_refused(pack(signllava, data, source, "--shard-mb", 0), "the source files", "--overwrite")
    dataset(data, {**content, "rec3/new": np.ones(1)})
    assert_refused(pack(signllava, data, source, "--shard-mb", 0), "the annotated clips", "--overwrite")
    assert state(data) == before
    result = pack(signllava, data, source, "--overwrite")
    assert result.code == 0, result.err
    assert [file.name for file in StreamPaths(data, "mae", "train").list_shards()] == ["mae.train.0.h5"]
    assert_packed(data, {**content, "rec0/r0c0": np.zeros((7, 4))})


def test_files_of_another_tool_are_only_replaced_with_overwrite(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    (data / "mae").mkdir()
    (data / "mae/mae.train.0.h5").write_bytes(b"years of work")
    assert_refused(pack(signllava, data, source), "holds mae.train.0.h5, but no plan", "--overwrite")
    assert_refused(pack(signllava, data, tmp_path / "data", "--overwrite"), "Nothing to pack")
    assert (data / "mae/mae.train.0.h5").read_bytes() == b"years of work"
    assert pack(signllava, data, source, "--overwrite").code == 0
    assert_packed(data, content)


@pytest.mark.reliability("Faults", "of two commands that write one folder, the second is refused")
def test_one_pack_of_a_stream_and_split_at_a_time(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    with StreamPaths(data, "mae", "train").lock():
        assert_refused(pack(signllava, data, source), "Another process is writing stream mae, split train")
        assert signllava("prepare", "link", tmp_path, "--stream", "mae", "--out", data, "--split", "train").code == 2
    with StreamPaths(data, "mae", "dev").lock(), StreamPaths(data, "dino", "train").lock():
        assert pack(signllava, data, source).code == 0
