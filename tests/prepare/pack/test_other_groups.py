"""Feature files whose groups are not the recordings, such as How2Sign's VIDEO_IDs, are found by clip name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, open_recipe_split
from test_link import link
from test_pack import Arrays, annotate, assert_packed, assert_refused, npy_folder, pack, report

from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.recipe import build_recipe

Command = Callable[..., Ended]
# two signers (VIDEO_NAME) share the script v1 (VIDEO_ID); v2 has one
RECORDINGS = {"v1-5-rgb": ["v1_0-5-rgb", "v1_2-5-rgb"], "v1-8-rgb": ["v1_1-8-rgb"], "v2-5-rgb": ["v2_0-5-rgb"]}


def video_id(clip: str) -> str:
    return clip.partition("_")[0]


def frames(number: int) -> np.ndarray:
    return np.full((3 + number, 4), number + 0.5, np.float32)


CLIPS = {clip: frames(number) for number, clip in enumerate(clip for clips in RECORDINGS.values() for clip in clips)}
CONTENT = {f"{recording}/{clip}": CLIPS[clip] for recording, clips in RECORDINGS.items() for clip in clips}


def how2sign(root: Path, source: bool = True) -> Path:
    """A dataset folder whose recordings are VIDEO_NAMEs."""
    annotate(root, RECORDINGS)
    if source:
        file = root / "annotation.train.json"
        content = json.loads(file.read_text())
        for recording, clips in RECORDINGS.items():
            for clip in clips:
                content[recording][clip]["source"] = {"video_id": video_id(clip), "video_name": recording}
        file.write_text(json.dumps(content))
    return root


def by_video_id(file: Path, *videos: str, **options: object) -> Path:
    """An HDF5 file like those of Sign_LLaVA: a group per VIDEO_ID, a dataset per SENTENCE_NAME."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as handle:
        for clip, array in CLIPS.items():
            if video_id(clip) in videos:
                handle.create_dataset(f"{video_id(clip)}/{clip}", data=array.astype(np.float16), **options)
    return file


def open_train(root: Path) -> Split:
    return open_recipe_split(build_recipe({"data": {"root": str(root)}, "streams": {"mae": {"width": 4}}}), "train")


def assert_reads(root: Path, content: Mapping[str, np.ndarray] = CONTENT) -> None:
    split = open_train(root)
    read = {clip.id: split.read(clip)["mae"] for clip in split.clips}
    assert read.keys() == content.keys()
    for name, array in content.items():
        np.testing.assert_array_equal(read[name], array.astype(np.float16))


def write_dataset(root: Path, shard_of: Mapping[str, int], **options: object) -> Path:
    """A dataset folder with a stream: v1 in shard 0, v2 in shard 1."""
    how2sign(root)
    by_video_id(root / "mae/mae.train.0.h5", "v1", **options)
    by_video_id(root / "mae/mae.train.1.h5", "v2", **options)
    (root / "mae/metadata_mae.train.json").write_text(json.dumps(shard_of))
    return root


BY_VIDEO_ID = {"v1": 0, "v2": 1}
BY_RECORDING = {"v1-5-rgb": 0, "v1-8-rgb": 0, "v2-5-rgb": 1}


@pytest.mark.parametrize("shard_of", [BY_VIDEO_ID, BY_RECORDING], ids=["metadata by group", "metadata by recording"])
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 4), "compression": "gzip"}], ids=["plain", "chunked"])
def test_a_folder_with_other_groups_reads_and_passes_check(
    signllava: Command, tmp_path: Path, shard_of: Mapping[str, int], options: Mapping[str, object]
) -> None:
    root = write_dataset(tmp_path / "data", shard_of, **options)
    assert_reads(root)
    assert_reads(root)  # with the existing index
    result = signllava("prepare", "check", root, "--report", tmp_path / "check.json")
    names = {finding["name"] for finding in json.loads((tmp_path / "check.json").read_text())["findings"]}
    assert not {name for name in names if name.startswith(("recording-", "features-"))} - {"features-constant"}, names
    assert result.code == 0, result.out


def test_sign_llava_files_are_linked_without_a_copy(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data", source=False)
    files = [by_video_id(tmp_path / f"H2S.mae.{video}.h5", video) for video in ("v1", "v2")]
    result = link(signllava, root, *files)
    assert result.code == 0, result.err
    assert "linked 2 files" in result.out
    assert "4 clips" in result.out
    assert "warning" not in result.out
    assert (root / "mae/mae.train.0.h5").readlink() == files[0].resolve()
    assert_reads(root)


def test_link_names_the_recordings_without_features(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data")
    result = link(signllava, root, by_video_id(tmp_path / "v1.h5", "v1"))
    assert result.code == 0, result.err
    assert "1 of 3 annotated recordings are in none of the files (v2-5-rgb)" in result.out
    with pytest.raises(UserError, match=r"1 of 4 clips have no features \(v2-5-rgb/v2_0-5-rgb in mae\)"):
        open_train(root)


def test_the_same_clip_in_two_groups_is_an_error_that_names_both(signllava: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", {**BY_VIDEO_ID, "copy": 1})
    with h5py.File(root / "mae/mae.train.1.h5", "a") as file:
        file["copy/v1_1-8-rgb"] = np.zeros((2, 4), np.float16)
    result = signllava("prepare", "index", root)
    assert_refused(result, "v1-8-rgb/v1_1-8-rgb", "v1 of", "mae.train.0.h5", "copy of", "mae.train.1.h5")
    result = signllava("prepare", "check", root, "--report", tmp_path / "check.json")
    names_of = {
        finding["name"]: finding["names"] for finding in json.loads((tmp_path / "check.json").read_text())["findings"]
    }
    assert names_of["features-ambiguous"] == ["v1-8-rgb/v1_1-8-rgb"]
    files = [root / "mae/mae.train.0.h5", root / "mae/mae.train.1.h5"]
    other = how2sign(tmp_path / "linked")
    assert_refused(link(signllava, other, *files), "v1_1-8-rgb", "mae.train.0.h5", "mae.train.1.h5")
    result = pack(signllava, other, *files)
    assert result.code == 0, result.err
    reasons = report(other)["faulty"]
    assert isinstance(reasons, dict)
    assert list(reasons) == ["v1-8-rgb/v1_1-8-rgb"]
    for part in ("v1/v1_1-8-rgb", "mae.train.0.h5", "copy/v1_1-8-rgb", "mae.train.1.h5"):
        assert part in str(reasons)


def test_the_group_of_the_recording_has_precedence(signllava: Command, tmp_path: Path) -> None:
    """Also where another group holds an array of the same name."""
    root = write_dataset(tmp_path / "data", {**BY_VIDEO_ID, "v1-8-rgb": 1})
    own = np.full((7, 4), 9, np.float32)
    with h5py.File(root / "mae/mae.train.1.h5", "a") as file:
        file["v1-8-rgb/v1_1-8-rgb"] = own.astype(np.float16)
    content: Arrays = {**CONTENT, "v1-8-rgb/v1_1-8-rgb": own}
    assert_reads(root, content)
    files = [root / "mae/mae.train.0.h5", root / "mae/mae.train.1.h5"]
    linked, copied = how2sign(tmp_path / "linked"), how2sign(tmp_path / "copied")
    assert link(signllava, linked, *files).code == 0
    assert_reads(linked, content)
    assert pack(signllava, copied, *files).code == 0
    assert_packed(copied, content)


def test_names_that_do_not_tell_a_clip_are_not_looked_for_elsewhere(signllava: Command, tmp_path: Path) -> None:
    """Clips called 0, 1, ... in every recording: an array `1` of another recording is another clip's."""
    root = annotate(tmp_path / "data", {"a": ["0", "1"], "b": ["0"]})
    (root / "mae").mkdir()
    (root / "mae/metadata_mae.train.json").write_text(json.dumps({"a": 0, "b": 0, "dev7": 0}))
    with h5py.File(root / "mae/mae.train.0.h5", "w") as file:
        for name in ("a/0", "b/0", "dev7/1"):
            file[name] = np.ones((2, 4), np.float16)
    result = signllava("prepare", "index", root)
    assert "clip name 0 is in recordings a and b" in result.out
    with pytest.raises(UserError, match=r"1 of 3 clips have no features \(a/1 in mae\)"):
        open_train(root)
    copied = annotate(tmp_path / "copied", {"a": ["0", "1"], "b": ["0"]})
    assert pack(signllava, copied, root / "mae/mae.train.0.h5").code == 0
    assert report(copied)["missing"] == ["a/1"]


def test_clip_names_are_used_again_once_they_are_unique(tmp_path: Path) -> None:
    """An array that was not searched by name while two clips shared one is found after the annotation is fixed."""
    root = write_dataset(tmp_path / "data", BY_VIDEO_ID)
    file = root / "annotation.train.json"
    good = json.loads(file.read_text())
    entry = {"translation": "Hello."}
    file.write_text(json.dumps({**good, "v3": {"clip_order": ["v1_1-8-rgb"], "v1_1-8-rgb": entry}}))
    with pytest.raises(UserError, match="5 of 5 clips have no features"):
        open_train(root)
    file.write_text(json.dumps(good))
    assert_reads(root)


def test_pack_finds_clips_in_other_groups_by_default(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data", source=False)
    result = pack(signllava, root, by_video_id(tmp_path / "1.h5", "v1"), by_video_id(tmp_path / "2.h5", "v2"))
    assert result.code == 0, result.err
    assert "4 of 4 clips" in result.out
    assert_packed(root, CONTENT)
    assert_reads(root)


def test_columns_of_the_source_are_fields_of_patterns_and_keys(signllava: Command, tmp_path: Path) -> None:
    file = by_video_id(tmp_path / "x.h5", "v1", "v2")
    arguments: dict[str, tuple[object, ...]] = {
        "hdf5": (file, "--key", "{video_id}/{clip}"),
        "folder": (
            npy_folder(tmp_path / "npy", {f"{video_id(clip)}/{clip}": array for clip, array in CLIPS.items()}),
            *("--pattern", "{video_id}/{clip}.npy"),
        ),
        "hdf5 a video": (by_video_id(tmp_path / "h5/v1.h5", "v1").parent, "--pattern", "{video_id}.h5"),
    }
    by_video_id(tmp_path / "h5/v2.h5", "v2")
    arguments["hdf5 a video"] += ("--key", "{video_id}/{clip}")
    for name, args in arguments.items():
        root = how2sign(tmp_path / name)
        result = pack(signllava, root, *args)
        assert result.code == 0, (name, result.err)
        assert_packed(root, CONTENT)


def test_an_unknown_column_is_refused_and_the_known_ones_named(signllava: Command, tmp_path: Path) -> None:
    file = by_video_id(tmp_path / "x.h5", "v1", "v2")
    root = how2sign(tmp_path / "data")
    messages = ("--key {signer}/{clip}", "{signer}", "{recording}, {clip}, {video_id}, {video_name}")
    assert_refused(pack(signllava, root, file, "--key", "{signer}/{clip}"), *messages)
    without_source = how2sign(tmp_path / "without_source", source=False)
    result = pack(signllava, without_source, file, "--key", "{video_id}/{clip}")
    assert_refused(result, "{video_id}", "may hold {recording}, {clip}", "import the annotation again")
    content = json.loads((root / "annotation.train.json").read_text())
    del content["v1-8-rgb"]["v1_1-8-rgb"]["source"]["video_id"]
    (root / "annotation.train.json").write_text(json.dumps(content))
    result = pack(signllava, root, file, "--key", "{video_id}/{clip}")
    assert result.code == 0, result.err
    reasons = report(root)["faulty"]
    assert reasons == {"v1-8-rgb/v1_1-8-rgb": "the annotation has no {video_id} for this clip"}


def test_nothing_to_pack_shows_a_key_of_the_file(signllava: Command, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/some_clip/features"] = np.ones((2, 4))
    result = pack(signllava, how2sign(tmp_path / "data"), tmp_path / "x.h5")
    assert_refused(result, "Nothing to pack", "x.h5 holds train/some_clip/features", "--key")
