"""The index agrees with the files, detects their changes, and is built correctly after a kill."""

import json
import os
import pickle
import random
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, interrupted, subprocess_command, wait_until_gone, wait_until_stopped

from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.index import Index
from signllava_cli.errors import UserError
from signllava_cli.prepare import indexing
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Stream

STREAMS = {"sign2vec": Stream(width=48), "mae": Stream(width=64)}


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus without an index, which a test may change."""
    return Path(shutil.copytree(corpus, tmp_path / "copy", ignore=shutil.ignore_patterns("index.*")))


def test_the_index_agrees_with_the_files(copy: Path) -> None:
    index = open_index(copy, "dev", STREAMS)
    clips = [clip for recording in read_annotations(copy, "dev") for clip in recording.clips]
    assert [index.clip(row) for row in range(len(index))] == clips
    assert index.text_bytes.tolist() == [len(clip.translation.encode()) for clip in clips]
    for name, stream in STREAMS.items():
        for row, clip in enumerate(clips):
            with h5py.File(index.files(name)[index.file_indices(name)[row]], "r") as file:
                frames = file[f"{clip.recording}/{clip.name}"]
                assert frames.shape == (index.frame_counts(name)[row], stream.width)


def test_an_index_is_built_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_index(copy, "dev", STREAMS)
    assert "indexed" in capsys.readouterr().out
    open_index(copy, "dev", STREAMS)
    open_index(copy, "dev", {"mae": STREAMS["mae"]})
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in copy.iterdir() if "index" in path.name) == ["index.dev.arrow"]


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize(
    "changed", ["annotation.dev.json", "mae/metadata_mae.dev.json", "mae/mae.dev.0.h5", "sign2vec/sign2vec.dev.1.h5"]
)
def test_a_changed_file_is_detected_and_named(copy: Path, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = open_index(copy, "dev", STREAMS)
    touch(copy / changed)
    assert changed in str(index.stale_reason("dev", STREAMS))
    capsys.readouterr()
    assert open_index(copy, "dev", STREAMS).stale_reason("dev", STREAMS) is None
    assert f"{changed} has changed" in capsys.readouterr().out


def test_after_a_changed_text_shards_are_not_read_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = open_index(copy, "dev", STREAMS).frame_counts("mae").copy()
    file = copy / "annotation.dev.json"
    content = json.loads(file.read_text())
    recording = next(iter(content))
    removed = content[recording]["clip_order"].pop(0)
    del content[recording][removed]
    content[recording][content[recording]["clip_order"][0]]["translation"] = "Something else."
    file.write_text(json.dumps(content))
    monkeypatch.setattr(indexing, "list_shard", lambda file: pytest.fail("a shard was read"))
    index = open_index(copy, "dev", STREAMS)
    assert index.translation(0) == "Something else."
    np.testing.assert_array_equal(index.frame_counts("mae"), frames[1:])


def test_one_index_holds_the_streams_of_several_recipes(copy: Path) -> None:
    open_index(copy, "dev", {"mae": STREAMS["mae"]})
    assert open_index(copy, "dev", {"sign2vec": STREAMS["sign2vec"]}).streams == ["mae", "sign2vec"]


@pytest.mark.parametrize("content", [b"", b"ARROW1 not", b"\0" * 4096])
def test_a_damaged_index_is_rebuilt(copy: Path, content: bytes) -> None:
    open_index(copy, "dev", STREAMS)
    (copy / "index.dev.arrow").write_bytes(content)
    with pytest.raises(UserError, match="is not a valid index"):
        Index(copy / "index.dev.arrow", copy)
    assert len(open_index(copy, "dev", STREAMS))


def test_a_damaged_listing_of_a_killed_run_is_written_again(copy: Path) -> None:
    open_index(copy, "dev", STREAMS)
    complete = (copy / "index.dev.arrow").read_bytes()
    (copy / "index.dev.arrow").unlink()
    parts = copy / "index.dev.parts"
    parts.mkdir()
    for shard in (copy / "mae").glob("mae.dev.*.h5"):
        (parts / f"{indexing._shard_key(shard)}.arrow").write_bytes(b"half of it")
    open_index(copy, "dev", STREAMS)
    assert (copy / "index.dev.arrow").read_bytes() == complete


def test_a_read_only_folder_gets_its_index_in_the_cache(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    assert len(open_index(copy, "dev", STREAMS))
    assert not (copy / "index.dev.arrow").exists()
    assert len(list((tmp_path / "cache" / "signllava" / "index").rglob("index.dev.arrow"))) == 1


def test_an_index_can_be_pickled_for_a_spawned_process(copy: Path) -> None:
    index = open_index(copy, "dev", STREAMS)
    assert pickle.loads(pickle.dumps(index)).clip(3) == index.clip(3)  # noqa: S301 (our own bytes)


def test_one_or_several_workers_give_the_same_index(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(copy, "train", STREAMS, workers=1)
    expected = (copy / "index.train.arrow").read_bytes()
    (copy / "index.train.arrow").unlink()
    monkeypatch.setattr(indexing, "MIN_CLIPS_FOR_POOL", 0)
    open_index(copy, "train", STREAMS, workers=2)
    assert (copy / "index.train.arrow").read_bytes() == expected


def test_placeholder_paraphrases_are_skipped_and_counted(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "annotation.dev.json"
    content = json.loads(file.read_text())
    clip = content["dev00"]["clip_order"][2]
    content["dev00"][clip]["paraphrases"] = ["<none>", "One thing.", "nan", " "]
    file.write_text(json.dumps(content))
    assert open_index(copy, "dev", STREAMS).clip(2).paraphrases == ("One thing.",)
    assert f"3 placeholder paraphrases are skipped (dev00/{clip})" in capsys.readouterr().out


def write_shards(root: Path, num_shards: int, num_clips: int) -> Path:
    """A dataset whose shards take some time to list."""
    (root / "mae").mkdir(parents=True)
    names = [f"clip{number:04d}" for number in range(num_clips)]
    entry = {"clip_order": names, **{name: {"translation": f"Sentence {name}."} for name in names}}
    (root / "annotation.train.json").write_text(json.dumps({f"rec{shard}": entry for shard in range(num_shards)}))
    (root / "mae" / "metadata_mae.train.json").write_text(json.dumps({f"rec{s}": s for s in range(num_shards)}))
    for shard in range(num_shards):
        with h5py.File(root / "mae" / f"mae.train.{shard}.h5", "w", libver="v110") as file:
            group = file.create_group(f"rec{shard}")
            for name in names:
                group.create_dataset(name, data=np.zeros((1, 4), np.float16))
    return root


@pytest.mark.drill
@pytest.mark.parametrize("num_kills", [2, 20])
@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_run_leaves_complete_files_and_the_next_one_continues(tmp_path: Path, num_kills: int) -> None:
    root = write_shards(tmp_path / "d", num_shards=12, num_clips=200)
    command = ("prepare", "index", root, "--split", "train", "--workers", 2)
    rng = random.Random(num_kills)
    listings: dict[Path, tuple[int, int]] = {}
    for kill in range(num_kills):
        if len(listings) < 12:  # a worker stops with its `count`-th listing written, but not yet renamed
            pattern, count = "????????????????????????.arrow", rng.randint(1, min(3, (13 - len(listings)) // 2))
        else:
            pattern, count = "index.train.arrow", 1
        environment = interrupted(pattern, count, signal.SIGSTOP, "rename")
        process = subprocess_command(*command, start_new_session=True, env=environment)
        family = wait_until_stopped(process)
        process.kill()
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)
        wait_until_gone(family[:-1])
        process.communicate()
        assert not (root / "index.train.arrow").exists()
        parts = {part: state(part) for part in (root / "index.train.parts").glob("*.arrow")}
        assert listings.items() <= parts.items(), "a complete listing was written again"
        listings = parts
    process = subprocess_command(*command)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    index = Index(root / "index.train.arrow", root)
    assert len(index) == 2_400
    assert (index.frame_counts("mae") == 1).all()
    assert not (root / "index.train.parts").exists()


def state(file: Path) -> tuple[int, int]:
    return file.stat()[stat.ST_INO], file.stat().st_mtime_ns


def test_the_command_names_streams_and_clips(copy: Path, signllava: Callable[..., Ended]) -> None:
    result = signllava("prepare", "index", copy)
    assert result.code == 0
    for part in ("split dev", "split test", "split train", "sign2vec", "mae", "pose"):
        assert part in result.out
    assert all((copy / f"index.{split}.arrow").is_file() for split in ("train", "dev", "test"))
