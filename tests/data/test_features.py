"""Feature streams: shards are found, invalid ones are refused, and frames are read as they were written."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import open_recipe_split

from signllava_cli.data.annotations import Clip
from signllava_cli.data.feature_stream import FeatureStream, subsample
from signllava_cli.errors import UserError
from signllava_cli.prepare.indexing import open_index, open_split
from signllava_cli.recipe import Recipe, Stream, build_recipe

A, B = Clip("rec", "a", 0, "One.", row=0), Clip("rec", "b", 1, "Two.", row=1)
FRAMES = np.arange(20, dtype=np.float16).reshape(5, 4)


def dataset(root: Path, metadata: str, shard_file: str, shard: object = 0, frames: np.ndarray = FRAMES) -> Path:
    """A data folder with one recording of two clips and one stream `mae`."""
    (root / "mae").mkdir(parents=True)
    entries = {"a": {"translation": "One."}, "b": {"translation": "Two."}}
    (root / "annotation.train.json").write_text(json.dumps({"rec": {"clip_order": ["a", "b"], **entries}}))
    (root / "mae" / metadata).write_text(json.dumps({"rec": shard}))
    with h5py.File(root / "mae" / shard_file, "w") as file:
        file["rec/a"], file["rec/b"] = FRAMES, frames
    return root


def stream(root: Path, **settings: Any) -> FeatureStream:
    mae = Stream(**{"width": 4, **settings})
    return FeatureStream(open_index(root, "train", {"mae": mae}), "mae", mae)


def recipe_for(root: Path, **data: object) -> Recipe:
    return build_recipe({"data": {"root": str(root), **data}, "streams": {"mae": {"width": 4}}})


@pytest.mark.parametrize(
    ("metadata", "shard_file", "shard", "settings"),
    [
        ("metadata_mae.train.json", "mae.train.0.h5", 0, {}),
        ("metadata_mae.train.json", "mae.train.7.h5", "7", {}),
        ("metadata_dino.train.json", "dino.train.0.h5", 0, {}),  # as the seed's tree names them
        ("metadata_mae.train.json", "H2S.mae.train.0.h5", 0, {}),
        ("H2S.mae.train.json", "H2S.mae.train.0.h5", 0, {}),
        ("map.train.txt", "x-train-0", 0, {"metadata": "map.{split}.txt", "shards": "x-{split}-{shard}"}),
    ],
)
@pytest.mark.parametrize("folder", ["plain", "metadata_x", "x.json"])
def test_shards_are_found_under_all_supported_names(
    tmp_path: Path, folder: str, metadata: str, shard_file: str, shard: object, settings: dict[str, object]
) -> None:
    root = dataset(tmp_path / folder, metadata, shard_file, shard)
    mae = stream(root, **settings)
    assert mae.frame_counts[A.row] == 5
    np.testing.assert_array_equal(mae.read(A), FRAMES)


def test_two_candidate_metadata_files_are_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_dino.train.json", "dino.train.0.h5")
    (root / "mae" / "metadata_pose.train.json").write_text("{}")
    with pytest.raises(UserError, match=r"no metadata file for split train .*set streams\.mae\.metadata"):
        stream(root)


def test_the_error_of_a_missing_shard_names_files_and_recordings(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", shard=3)
    with pytest.raises(UserError, match=r"shard 3 .*mae\.train\.3\.h5.*has rec"):
        stream(root)


def test_the_error_of_a_truncated_shard_names_the_file(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    file = root / "mae" / "mae.train.0.h5"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=r"mae\.train\.0\.h5"):
        stream(root)


def test_the_error_of_a_wrong_width_names_the_clip(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=np.zeros((5, 3)))
    with pytest.raises(UserError, match=r"clip rec/b .*\(5, 3\).*streams\.mae\.width=4"):
        open_recipe_split(recipe_for(root), "train")


def test_the_error_of_non_finite_features_names_the_clip(tmp_path: Path) -> None:
    bad = FRAMES.copy()
    bad[2, 2] = np.nan
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=bad)
    with pytest.raises(UserError, match=r"clip rec/b .*NaN"):
        stream(root).read(B)


def test_a_group_instead_of_an_array_is_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    with h5py.File(root / "mae" / "mae.train.0.h5", "a") as file:
        del file["rec/b"]
        file.create_group("rec/b")
    with pytest.raises(UserError, match=r"clip rec/b .*a group, expected an array"):
        stream(root)


@pytest.mark.parametrize("kind", ["empty", "a name in Latin-1", "a link that loops", "a link to nowhere", "scalar"])
def test_invalid_datasets_give_a_one_line_error(tmp_path: Path, kind: str) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    with h5py.File(root / "mae" / "mae.train.0.h5", "a") as file:
        if kind == "a name in Latin-1":
            h5py.h5g.create(file["rec"].id, b"caf\xe9")  # no clip of the annotation: ignored
            h5py.h5g.create(file.id, b"caf\xe9")
        else:
            del file["rec/b"]
        if kind == "empty":
            file["rec/b"] = h5py.Empty("f2")
        elif kind == "scalar":
            file["rec/b"] = np.float16(1)
        elif kind.startswith("a link"):
            file["rec/b"] = h5py.SoftLink("/rec/b" if "loops" in kind else "/nowhere")
            file["loop"] = h5py.SoftLink("/loop")
    if kind == "a name in Latin-1":
        assert stream(root).read(B).shape == (5, 4)
    else:
        with pytest.raises(UserError, match=r"clip rec/b .*expected"):
            stream(root)


def test_frames_behind_an_external_link_are_read_from_the_other_file(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    shard, target = root / "mae" / "mae.train.0.h5", root / "elsewhere.h5"
    shard.rename(target)
    with h5py.File(shard, "w") as file:
        file["padding"] = np.full(4096, 7, np.float16)
        file["rec/a"] = h5py.ExternalLink(str(target), "/rec/a")
        file["rec/b"] = h5py.ExternalLink(str(target), "/rec/b")
    np.testing.assert_array_equal(stream(root).read(A), FRAMES)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_a_shard_that_was_replaced_after_opening_is_an_error(tmp_path: Path, dtype: str) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=FRAMES.astype(dtype))
    mae = stream(root)
    with h5py.File(root / "mae" / "mae.train.0.h5", "w") as file:
        file["rec/0"], file["rec/a"], file["rec/b"] = FRAMES + 1, FRAMES + 2, FRAMES + 3
    with pytest.raises(UserError, match=r"mae\.train\.0\.h5 has changed since the split was opened"):
        mae.read(B)


def write_other_frames(shard: Path, dtype: str) -> None:
    with h5py.File(shard, "w") as file:
        file["rec/a"], file["rec/b"] = (FRAMES + 1).astype(dtype), (FRAMES + 2).astype(dtype)


@pytest.mark.reliability("Faults", "frames of an open shard are its old ones, or an error")
@pytest.mark.parametrize("dtype", ["f2", "f4"])  # read directly, and through HDF5
@pytest.mark.parametrize("change", ["removed", "replaced", "rewritten", "truncated"])
def test_an_open_shard_gives_its_old_frames_or_an_error(tmp_path: Path, dtype: str, change: str) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    shard, other = root / "mae" / "mae.train.0.h5", tmp_path / "other.h5"
    with h5py.File(shard, "w") as file:
        file["rec/a"], file["rec/b"] = FRAMES.astype(dtype), FRAMES.astype(dtype)
    write_other_frames(other, dtype)
    assert other.stat().st_size == shard.stat().st_size
    mae = stream(root)
    mae.read(A)
    if change == "removed":
        shard.unlink()
    elif change == "replaced":
        other.replace(shard)
    elif change == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        with open(shard, "r+b") as opened:
            opened.write(other.read_bytes())
    if change in ("removed", "replaced"):
        np.testing.assert_array_equal(mae.read(B), FRAMES)
    else:
        with pytest.raises(UserError, match=r"mae\.train\.0\.h5 has changed since the split was opened; restore it"):
            mae.read(B)


def test_an_index_that_is_overwritten_is_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    mae = stream(root)
    mae.read(A)
    os.utime(root / "index.train.arrow", (0, 0))
    for read in (lambda: mae.read(B), lambda: mae.index.clip(0)):
        with pytest.raises(UserError, match=r"index\.train\.arrow was overwritten while it was in use"):
            read()


@pytest.mark.reliability("Faults", "a read that fails once is repeated, and changes nothing")
@pytest.mark.parametrize("num_failures", [1, 3, 4])
def test_a_failed_read_is_repeated_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], num_failures: int
) -> None:
    mae = stream(dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5"))
    pread, errors = os.pread, [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EIO][:num_failures]

    def failing_pread(file: int, size: int, offset: int) -> bytes:
        if errors:
            raise OSError(errors.pop(0), "failed")
        return pread(file, size, offset)

    monkeypatch.setattr("signllava_cli.data.open_shards.RETRY_SECONDS", (0, 0, 0))
    monkeypatch.setattr(os, "pread", failing_pread)
    if num_failures == 4:
        with pytest.raises(UserError, match=r"0\.h5 cannot be read at clip rec/a \(Input/output error, 4 times\)"):
            mae.read(A)
    else:
        np.testing.assert_array_equal(mae.read(A), FRAMES)
    warnings = capsys.readouterr().out.splitlines()[-min(num_failures, 3) :]
    for number, warning in enumerate(warnings, start=1):
        assert f"mae.train.0.h5: reading clip rec/a failed ({os.strerror(errno.EIO)})" in warning or number > 1
        assert f"(repeated read {number} of this process)" in warning


def test_a_shard_with_both_kinds_of_arrays_does_not_leak_file_handles(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=FRAMES.astype("f4"))
    mixed = stream(root)
    mixed.read(A)
    mixed.read(B)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        mixed.read(A)
        mixed.read(B)
    assert len(os.listdir("/proc/self/fd")) == before


def test_clips_without_frames_are_an_error_or_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=np.zeros((0, 4)))
    with pytest.raises(UserError, match=r"1 of 2 clips have no features \(rec/b in mae\)"):
        open_recipe_split(recipe_for(root), "train")
    split = open_recipe_split(recipe_for(root, missing="skip"), "train")
    assert [clip.name for clip in split.clips] == ["a"]
    assert [split.missing_streams(row) for row in range(2)] == [None, "mae"]
    assert "1 of 2 clips have no features (rec/b in mae)" in capsys.readouterr().out


def test_stride_and_max_frames_keep_evenly_spaced_frames(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    np.testing.assert_array_equal(stream(root, stride=2).read(A), FRAMES[::2])
    np.testing.assert_array_equal(stream(root, max_frames=3).read(A), FRAMES[[0, 2, 4]])
    np.testing.assert_array_equal(subsample(FRAMES, 1), FRAMES[:1])


@pytest.mark.parametrize(
    "layout", [{}, {"chunks": (7, 5)}, {"chunks": (7, 5), "compression": "gzip"}, {"dtype": "f4"}]
)
@pytest.mark.parametrize("width", [5, 3000])  # 3000: skipping a frame is faster than reading it
@pytest.mark.parametrize("stride", [1, 2, 9, 40])
@pytest.mark.parametrize("limit", [None, 1, 2, 4, 11])
def test_subsampling_while_reading_equals_subsampling_afterwards(
    tmp_path: Path, layout: dict[str, object], width: int, stride: int, limit: int | None
) -> None:
    frames = np.random.default_rng(0).normal(size=(37, width)).astype(np.float16)
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    with h5py.File(root / "mae" / "mae.train.0.h5", "w") as file:
        for name in ("a", "b"):
            file.create_dataset(f"rec/{name}", data=frames, **layout)
    read = stream(root, width=width, stride=stride, max_frames=limit)
    expected = frames[::stride]
    if limit is not None and len(expected) > limit:
        expected = subsample(expected, limit)
    for clip in (A, B):
        np.testing.assert_array_equal(read.read(clip), expected)
        assert read.kept_frame_counts()[clip.row] == len(expected)
        assert read.read(clip).dtype == np.float16


def test_skipped_frames_are_not_read(tmp_path: Path) -> None:
    """Reading two of 600 frames reads fewer bytes than three frames have."""
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5")
    width, count = 16384, 600
    with h5py.File(root / "mae" / "mae.train.0.h5", "w") as file:
        for name in ("a", "b"):
            file.create_dataset(f"rec/{name}", data=np.ones((count, width), np.float16))
    mae = stream(root, width=width, max_frames=2)
    before = bytes_read()
    mae.read(A)
    assert bytes_read() - before < 3 * 2 * width + 4096  # 4096: for reading /proc itself


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_more_shards_than_a_process_may_open_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signllava_cli.data.open_shards.MAX_OPEN_FILES", 2)
    root, names = tmp_path / "d", [f"r{number}" for number in range(7)]
    (root / "mae").mkdir(parents=True)
    annotation = {name: {"clip_order": ["a"], "a": {"translation": "One."}} for name in names}
    (root / "annotation.train.json").write_text(json.dumps(annotation))
    (root / "mae" / "metadata_mae.train.json").write_text(json.dumps({name: name for name in names}))
    for number, name in enumerate(names):
        with h5py.File(root / "mae" / f"mae.train.{name}.h5", "w") as file:
            file.create_dataset(f"{name}/a", data=FRAMES + number, dtype="f2" if number % 2 else "f4")
    split = open_recipe_split(recipe_for(root), "train")
    for _ in range(2):
        for number, clip in enumerate(split.clips):
            np.testing.assert_array_equal(split.read(clip)["mae"], FRAMES + number)
    assert len(split.streams[0]._shards._shards) <= 2


@pytest.mark.parametrize("dtype", ["f2", "f4"])  # read directly, and through HDF5
def test_a_forked_worker_opens_its_own_files(tmp_path: Path, dtype: str) -> None:
    root = dataset(tmp_path / "d", "metadata_mae.train.json", "mae.train.0.h5", frames=FRAMES.astype(dtype))
    parent = stream(root)
    parent.read(B)
    (before,) = parent._shards._shards.values()
    child = os.fork()
    if child == 0:
        is_equal = np.array_equal(parent.read(B), FRAMES)
        (after,) = parent._shards._shards.values()
        os._exit(0 if is_equal and after is not before else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_fingerprint_changes_with_texts_and_frames(corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    recipe = build_recipe({"data": {"root": str(copy)}, "streams": {"mae": {"width": 64}}})
    before = open_split(recipe.data, recipe.streams, "dev").fingerprint()
    assert open_split(recipe.data, recipe.streams, "dev").fingerprint() == before
    file = copy / "annotation.dev.json"
    file.write_text(file.read_text().replace("Today", "Now"))
    text_changed = open_split(recipe.data, recipe.streams, "dev").fingerprint()
    assert text_changed != before
    with h5py.File(copy / "mae" / "mae.dev.0.h5", "a") as shard:
        for clip in shard["dev00"].values():
            clip[...] = clip[...] + 1  # extracted again: the same shapes, other values
    assert open_split(recipe.data, recipe.streams, "dev").fingerprint() != text_changed
