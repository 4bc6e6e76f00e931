"""Feature files grouped by another column than the recordings, as How2Sign's by VIDEO_ID, are used all the same."""

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


CLIPS = {clip: frames(number) for number, clip in enumerate(clip for its in RECORDINGS.values() for clip in its)}
CONTENT = {f"{recording}/{clip}": CLIPS[clip] for recording, clips in RECORDINGS.items() for clip in clips}


def how2sign(root: Path, source: bool = True) -> Path:
    """A data folder whose recordings are VIDEO_NAMEs."""
    annotate(root, RECORDINGS)
    if source:
        file = root / "annotation.train.json"
        content = json.loads(file.read_text())
        for recording, clips in RECORDINGS.items():
            for clip in clips:
                content[recording][clip]["source"] = {"video_id": video_id(clip), "video_name": recording}
        file.write_text(json.dumps(content))
    return root


def by_video_id(file: Path, *videos: str, **settings: object) -> Path:
    """An HDF5 file as the research group's: a group per VIDEO_ID, a dataset per SENTENCE_NAME."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as handle:
        for clip, array in CLIPS.items():
            if video_id(clip) in videos:
                handle.create_dataset(f"{video_id(clip)}/{clip}", data=array.astype(np.float16), **settings)
    return file


def opened(root: Path) -> Split:
    return open_recipe_split(build_recipe({"data": {"root": str(root)}, "streams": {"mae": {"width": 4}}}), "train")


def assert_reads(root: Path, content: Mapping[str, np.ndarray] = CONTENT) -> None:
    split = opened(root)
    read = {clip.id: split.read(clip)["mae"] for clip in split.clips}
    assert read.keys() == content.keys()
    for name, array in content.items():
        np.testing.assert_array_equal(read[name], array.astype(np.float16))


def folder(root: Path, shard_of: Mapping[str, int], **settings: object) -> Path:
    """A data folder with its stream in place: v1 in shard 0, v2 in shard 1."""
    how2sign(root)
    by_video_id(root / "mae/mae.train.0.h5", "v1", **settings)
    by_video_id(root / "mae/mae.train.1.h5", "v2", **settings)
    (root / "mae/metadata_mae.train.json").write_text(json.dumps(shard_of))
    return root


BY_VIDEO_ID = {"v1": 0, "v2": 1}
BY_RECORDING = {"v1-5-rgb": 0, "v1-8-rgb": 0, "v2-5-rgb": 1}


@pytest.mark.parametrize("shard_of", [BY_VIDEO_ID, BY_RECORDING], ids=["metadata by group", "metadata by recording"])
@pytest.mark.parametrize("settings", [{}, {"chunks": (1, 4), "compression": "gzip"}], ids=["plain", "chunked"])
def test_a_folder_with_other_groups_reads_and_passes_check(
    signllava: Command, tmp_path: Path, shard_of: Mapping[str, int], settings: Mapping[str, object]
) -> None:
    root = folder(tmp_path / "data", shard_of, **settings)
    assert_reads(root)
    assert_reads(root)  # through the index that is there now
    ended = signllava("prepare", "check", root, "--report", tmp_path / "check.json")
    found = {each["name"] for each in json.loads((tmp_path / "check.json").read_text())["findings"]}
    assert not {name for name in found if name.startswith(("recording-", "features-"))} - {"features-constant"}, found
    assert ended.code == 0, ended.out


def test_research_files_are_linked_without_a_copy(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data", source=False)
    files = [by_video_id(tmp_path / f"H2S.mae.{video}.h5", video) for video in ("v1", "v2")]
    ended = link(signllava, root, *files)
    assert ended.code == 0, ended.err
    assert "linked 2 files" in ended.out
    assert "4 clips" in ended.out
    assert "warning" not in ended.out
    assert (root / "mae/mae.train.0.h5").readlink() == files[0].resolve()
    assert_reads(root)


def test_link_names_the_recordings_of_which_nothing_is_there(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data")
    ended = link(signllava, root, by_video_id(tmp_path / "v1.h5", "v1"))
    assert ended.code == 0, ended.err
    assert "1 of 3 annotated recordings are in none of the files (v2-5-rgb)" in ended.out
    with pytest.raises(UserError, match=r"1 of 4 clips have no features \(v2-5-rgb/v2_0-5-rgb in mae\)"):
        opened(root)


def test_the_same_clip_in_two_groups_is_an_error_that_names_both(signllava: Command, tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {**BY_VIDEO_ID, "copy": 1})
    with h5py.File(root / "mae/mae.train.1.h5", "a") as file:
        file["copy/v1_1-8-rgb"] = np.zeros((2, 4), np.float16)
    ended = signllava("prepare", "index", root)
    assert_refused(ended, "v1-8-rgb/v1_1-8-rgb", "v1 of", "mae.train.0.h5", "copy of", "mae.train.1.h5")
    ended = signllava("prepare", "check", root, "--report", tmp_path / "check.json")
    named = {each["name"]: each["names"] for each in json.loads((tmp_path / "check.json").read_text())["findings"]}
    assert named["features-ambiguous"] == ["v1-8-rgb/v1_1-8-rgb"]
    two = [root / "mae/mae.train.0.h5", root / "mae/mae.train.1.h5"]
    other = how2sign(tmp_path / "linked")
    assert_refused(link(signllava, other, *two), "v1_1-8-rgb", "mae.train.0.h5", "mae.train.1.h5")
    ended = pack(signllava, other, *two)
    assert ended.code == 0, ended.err
    reasons = report(other)["faulty"]
    assert isinstance(reasons, dict)
    assert list(reasons) == ["v1-8-rgb/v1_1-8-rgb"]
    for words in ("v1/v1_1-8-rgb", "mae.train.0.h5", "copy/v1_1-8-rgb", "mae.train.1.h5"):
        assert words in str(reasons)


def test_the_recordings_own_group_wins(signllava: Command, tmp_path: Path) -> None:
    """Also where another group holds an array of the same name."""
    root = folder(tmp_path / "data", {**BY_VIDEO_ID, "v1-8-rgb": 1})
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
    ended = signllava("prepare", "index", root)
    assert "clip name 0 stands in recordings a and b" in ended.out
    with pytest.raises(UserError, match=r"1 of 3 clips have no features \(a/1 in mae\)"):
        opened(root)
    copied = annotate(tmp_path / "copied", {"a": ["0", "1"], "b": ["0"]})
    assert pack(signllava, copied, root / "mae/mae.train.0.h5").code == 0
    assert report(copied)["without_file"] == ["a/1"]


def test_a_renamed_clip_makes_names_tell_again(tmp_path: Path) -> None:
    """What was not looked for while two clips had one name is found once the annotation is fixed."""
    root = folder(tmp_path / "data", BY_VIDEO_ID)
    file = root / "annotation.train.json"
    good = json.loads(file.read_text())
    entry = {"translation": "Hello."}
    file.write_text(json.dumps({**good, "v3": {"clip_order": ["v1_1-8-rgb"], "v1_1-8-rgb": entry}}))
    with pytest.raises(UserError, match="5 of 5 clips have no features"):
        opened(root)
    file.write_text(json.dumps(good))
    assert_reads(root)


def test_pack_finds_clips_in_other_groups_by_default(signllava: Command, tmp_path: Path) -> None:
    root = how2sign(tmp_path / "data", source=False)
    ended = pack(signllava, root, by_video_id(tmp_path / "1.h5", "v1"), by_video_id(tmp_path / "2.h5", "v2"))
    assert ended.code == 0, ended.err
    assert "4 of 4 clips" in ended.out
    assert_packed(root, CONTENT)
    assert_reads(root)


def test_a_column_of_the_source_stands_in_patterns_and_keys(signllava: Command, tmp_path: Path) -> None:
    file = by_video_id(tmp_path / "x.h5", "v1", "v2")
    words: dict[str, tuple[object, ...]] = {
        "hdf5": (file, "--key", "{video_id}/{clip}"),
        "folder": (
            npy_folder(tmp_path / "npy", {f"{video_id(clip)}/{clip}": array for clip, array in CLIPS.items()}),
            *("--pattern", "{video_id}/{clip}.npy"),
        ),
        "hdf5 a video": (by_video_id(tmp_path / "h5/v1.h5", "v1").parent, "--pattern", "{video_id}.h5"),
    }
    by_video_id(tmp_path / "h5/v2.h5", "v2")
    words["hdf5 a video"] += ("--key", "{video_id}/{clip}")
    for name, its in words.items():
        root = how2sign(tmp_path / name)
        ended = pack(signllava, root, *its)
        assert ended.code == 0, (name, ended.err)
        assert_packed(root, CONTENT)


def test_an_unknown_column_is_refused_with_those_that_are_there(signllava: Command, tmp_path: Path) -> None:
    file = by_video_id(tmp_path / "x.h5", "v1", "v2")
    root = how2sign(tmp_path / "data")
    says = ("--key {signer}/{clip}", "{signer}", "{recording}, {clip}, {video_id}, {video_name}")
    assert_refused(pack(signllava, root, file, "--key", "{signer}/{clip}"), *says)
    bare = how2sign(tmp_path / "bare", source=False)
    ended = pack(signllava, bare, file, "--key", "{video_id}/{clip}")
    assert_refused(ended, "{video_id}", "may hold {recording}, {clip}", "import the annotation again")
    partly = json.loads((root / "annotation.train.json").read_text())
    del partly["v1-8-rgb"]["v1_1-8-rgb"]["source"]["video_id"]
    (root / "annotation.train.json").write_text(json.dumps(partly))
    ended = pack(signllava, root, file, "--key", "{video_id}/{clip}")
    assert ended.code == 0, ended.err
    reasons = report(root)["faulty"]
    assert reasons == {"v1-8-rgb/v1_1-8-rgb": "the annotation gives it no {video_id}"}


def test_nothing_to_pack_shows_what_the_file_holds(signllava: Command, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/some_clip/features"] = np.ones((2, 4))
    ended = pack(signllava, how2sign(tmp_path / "data"), tmp_path / "x.h5")
    assert_refused(ended, "Nothing to pack", "x.h5 holds train/some_clip/features", "--key")
