"""The index says what the files say, notices when they change, and survives being killed."""

import json
import os
import pickle
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, subprocess_command

from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.index import Index
from signllava_cli.errors import UserError
from signllava_cli.prepare import indexing
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Stream

STREAMS = {"sign2vec": Stream(width=48), "mae": Stream(width=64)}


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus that a test may corrupt; without an index."""
    return Path(shutil.copytree(corpus, tmp_path / "copy", ignore=shutil.ignore_patterns("index.*")))


def test_the_index_says_what_the_files_say(copy: Path) -> None:
    index = open_index(copy, "dev", STREAMS)
    clips = [clip for recording in read_annotations(copy, "dev") for clip in recording.clips]
    assert [index.clip(row) for row in range(len(index))] == clips
    assert index.text_bytes.tolist() == [len(clip.translation.encode()) for clip in clips]
    for name, stream in STREAMS.items():
        for row, clip in enumerate(clips):
            with h5py.File(index.files(name)[index.file_indices(name)[row]], "r") as file:
                frames = file[f"{clip.recording}/{clip.name}"]
                assert frames.shape == (index.frame_counts(name)[row], stream.width)


def test_an_index_is_made_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_changed_source_is_noticed_and_named(copy: Path, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = open_index(copy, "dev", STREAMS)
    touch(copy / changed)
    assert changed in str(index.stale_reason("dev", STREAMS))
    capsys.readouterr()
    assert open_index(copy, "dev", STREAMS).stale_reason("dev", STREAMS) is None
    assert f"{changed} has changed" in capsys.readouterr().out


def test_a_changed_text_costs_no_second_reading_of_shards(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = open_index(copy, "dev", STREAMS).frame_counts("mae").copy()
    file = copy / "annotation.dev.json"
    content = json.loads(file.read_text())
    first = next(iter(content))
    gone = content[first]["clip_order"].pop(0)
    del content[first][gone]
    content[first][content[first]["clip_order"][0]]["translation"] = "Something else."
    file.write_text(json.dumps(content))
    monkeypatch.setattr(indexing, "list_shard", lambda file: pytest.fail("a shard was read"))
    index = open_index(copy, "dev", STREAMS)
    assert index.translation(0) == "Something else."
    np.testing.assert_array_equal(index.frame_counts("mae"), frames[1:])


def test_the_streams_of_several_recipes_live_in_one_index(copy: Path) -> None:
    open_index(copy, "dev", {"mae": STREAMS["mae"]})
    assert open_index(copy, "dev", {"sign2vec": STREAMS["sign2vec"]}).streams == ["mae", "sign2vec"]


@pytest.mark.parametrize("content", [b"", b"ARROW1 not", b"\0" * 4096])
def test_a_damaged_index_is_made_anew(copy: Path, content: bytes) -> None:
    open_index(copy, "dev", STREAMS)
    (copy / "index.dev.arrow").write_bytes(content)
    with pytest.raises(UserError, match="is not a valid index"):
        Index(copy / "index.dev.arrow", copy)
    assert len(open_index(copy, "dev", STREAMS))


def test_a_damaged_part_of_a_killed_indexing_is_listed_again(copy: Path) -> None:
    open_index(copy, "dev", STREAMS)
    whole = (copy / "index.dev.arrow").read_bytes()
    (copy / "index.dev.arrow").unlink()
    parts = copy / "index.dev.parts"
    parts.mkdir()
    for shard in (copy / "mae").glob("mae.dev.*.h5"):
        (parts / f"{indexing._key(shard)}.arrow").write_bytes(b"half of it")
    open_index(copy, "dev", STREAMS)
    assert (copy / "index.dev.arrow").read_bytes() == whole


def test_a_read_only_folder_gets_its_index_in_the_cache(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    assert len(open_index(copy, "dev", STREAMS))
    assert not (copy / "index.dev.arrow").exists()
    assert len(list((tmp_path / "cache" / "signllava" / "index").rglob("index.dev.arrow"))) == 1


def test_an_index_travels_to_a_process_that_was_not_forked(copy: Path) -> None:
    index = open_index(copy, "dev", STREAMS)
    assert pickle.loads(pickle.dumps(index)).clip(3) == index.clip(3)  # noqa: S301 (our own bytes)


def test_in_parallel_and_alone_give_the_same_index(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(copy, "train", STREAMS, workers=1)
    alone = (copy / "index.train.arrow").read_bytes()
    (copy / "index.train.arrow").unlink()
    monkeypatch.setattr(indexing, "MIN_CLIPS_FOR_POOL", 0)
    open_index(copy, "train", STREAMS, workers=2)
    assert (copy / "index.train.arrow").read_bytes() == alone


def test_paraphrases_that_say_nothing_are_left_out_and_counted(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copy / "annotation.dev.json"
    content = json.loads(file.read_text())
    clip = content["dev00"]["clip_order"][2]
    content["dev00"][clip]["paraphrases"] = ["<none>", "One thing.", "nan", " "]
    file.write_text(json.dumps(content))
    assert open_index(copy, "dev", STREAMS).clip(2).paraphrases == ("One thing.",)
    assert f"3 paraphrases that say nothing are left out (dev00/{clip})" in capsys.readouterr().out


def many_shards(root: Path, shards: int, clips: int) -> Path:
    """A dataset whose shards take a while to list."""
    (root / "mae").mkdir(parents=True)
    names = [f"clip{number:04d}" for number in range(clips)]
    entry = {"clip_order": names, **{name: {"translation": f"Sentence {name}."} for name in names}}
    (root / "annotation.train.json").write_text(json.dumps({f"rec{shard}": entry for shard in range(shards)}))
    (root / "mae" / "metadata_mae.train.json").write_text(json.dumps({f"rec{s}": s for s in range(shards)}))
    for shard in range(shards):
        with h5py.File(root / "mae" / f"mae.train.{shard}.h5", "w", libver="v110") as file:
            group = file.create_group(f"rec{shard}")
            for name in names:
                group.create_dataset(name, data=np.zeros((1, 4), np.float16))
    return root


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_indexing_leaves_nothing_half_and_loses_nothing(tmp_path: Path, times: int) -> None:
    root = many_shards(tmp_path / "d", shards=12, clips=2000)
    command = ("prepare", "index", root, "--split", "train", "--workers", 2)
    rng = random.Random(times)
    listed: dict[Path, tuple[int, int]] = {}
    start_time = time.monotonic()
    for _ in range(times):
        process = subprocess_command(*command, start_new_session=True)
        time.sleep(rng.uniform(0.3, 2.0))
        os.killpg(process.pid, signal.SIGKILL) if rng.random() < 0.5 else process.kill()
        process.communicate()
        if (root / "index.train.arrow").exists():
            assert Index(root / "index.train.arrow", root).stale_reason("train", {"mae": Stream(width=4)}) is None
            (root / "index.train.arrow").unlink()
            listed = {}
        parts = {part: state(part) for part in (root / "index.train.parts").glob("*.arrow")}
        assert listed.items() <= parts.items(), "what was finished was done again"
        listed = parts
    finished = subprocess_command(*command)
    out, _ = finished.communicate()
    assert finished.returncode == 0, out
    index = Index(root / "index.train.arrow", root)
    assert len(index) == 24_000
    assert (index.frame_counts("mae") == 1).all()
    assert not (root / "index.train.parts").exists()
    print(f"{times} kills in {time.monotonic() - start_time:.0f} s")


def state(file: Path) -> tuple[int, int]:
    return file.stat()[stat.ST_INO], file.stat().st_mtime_ns


def test_the_command_names_streams_and_clips(copy: Path, signllava: Callable[..., Ended]) -> None:
    ended = signllava("prepare", "index", copy)
    assert ended.code == 0
    for words in ("split dev", "split test", "split train", "sign2vec", "mae", "pose"):
        assert words in ended.out
    assert all((copy / f"index.{split}.arrow").is_file() for split in ("train", "dev", "test"))
