"""Folders that cannot be written: a command works without them, or refuses in one line that names the folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets
from faults import mounted_read_only

Command = Callable[..., Ended]
PROMISE = pytest.mark.reliability("Faults", "a read-only folder is enough for reading, and refused in one line else")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus without an index."""
    return Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    for word in words:
        assert word in ended.err


@PROMISE
def test_read_only_data_get_their_index_in_the_cache(signllava: Command, data: Path, cache: Path) -> None:
    with mounted_read_only(data):
        ended = signllava("prepare", "index", data, "--split", "dev")
        assert ended.code == 0, ended.err
        assert "indexing split dev" in ended.out
        assert "indexing split" not in signllava("prepare", "index", data, "--split", "dev").out
    assert len(list(cache.rglob("index.dev.arrow"))) == 1
    assert not list(data.glob("index.*"))


@PROMISE
def test_an_index_in_a_read_only_folder_is_used(signllava: Command, data: Path, cache: Path) -> None:
    """Without a cache too, as in a container."""
    assert signllava("prepare", "index", data, "--split", "dev").code == 0
    with mounted_read_only(data), mounted_read_only(cache):
        ended = signllava("prepare", "index", data, "--split", "dev")
        assert ended.code == 0, ended.err
        assert "indexing split" not in ended.out


@PROMISE
def test_read_only_data_and_cache_without_an_index_are_refused(signllava: Command, data: Path, cache: Path) -> None:
    with mounted_read_only(data), mounted_read_only(cache):
        ended = signllava("prepare", "index", data, "--split", "dev")
    assert_refused(ended, f"{data} is read-only", "Read-only file system", "XDG_CACHE_HOME", "prepare index")


@PROMISE
def test_a_read_only_run_folder_is_refused(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with mounted_read_only(tmp_path / "run"):
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings))
    assert_refused(ended, str(tmp_path / "run"), "Read-only file system")


@PROMISE
def test_a_read_only_run_can_be_decoded_into_another_folder(signllava: Command, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy", symlinks=True))
    words = ["generate", "-c", copy, "--split", "dev", "--max-new-tokens", 2]
    with mounted_read_only(copy):
        assert_refused(signllava(*words), str(copy), "Read-only file system")
        ended = signllava(*words, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "predictions.jsonl").is_file()
