"""Locks on file systems that have none, or, as NFS, only for files that are open for writing."""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from conftest import Ended

from signllava_cli.files import LOCK_FILE, exclusive_access
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import (
    META_FILE,
    PREDICTIONS_FILE,
    PredictionsFolder,
    read_predictions,
)

Command = Callable[..., Ended]


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def locks_of_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flock(2) says of NFS: an exclusive lock needs a descriptor that is open for writing."""
    flock = fcntl.flock

    def lock(handle: int | IO[str], operation: int) -> None:
        if stat.S_ISDIR(os.stat(handle if isinstance(handle, int) else handle.fileno()).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", lock)


@pytest.mark.usefixtures("locks_of_nfs")
@pytest.mark.reliability("Faults", "a file system without locks costs a warning, and no result")
def test_on_nfs_a_second_process_waits_for_the_lock_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []
    is_locked = threading.Event()

    def hold() -> None:
        with exclusive_access(tmp_path):
            is_locked.set()
            time.sleep(0.2)
            events.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_locked.wait(timeout=30)
    with exclusive_access(tmp_path):
        events.append("second")
    thread.join()
    assert events == ["first", "second"]
    assert (tmp_path / LOCK_FILE).exists()
    assert "waiting for it" in capsys.readouterr().out


@pytest.mark.usefixtures("without_locks")
@pytest.mark.reliability("Faults", "a file system without locks costs a warning, and no result")
def test_without_locks_a_command_runs_after_a_warning(signllava: Command, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("clip,video,start,end,text\na,v,0,1,Hello.\nb,v,1,2,Good morning.\n")
    options = ["--split", "train", "--clip", "clip", "--recording", "video", "--out", tmp_path / "data"]
    ended = signllava("prepare", "csv", "-a", table, *options)
    assert ended.code == 0, ended.err
    assert "file system without locks (No locks available)" in ended.out
    assert (tmp_path / "data" / "annotation.train.json").exists()


@pytest.mark.usefixtures("without_locks")
def test_the_check_of_a_run_folder_names_missing_locks(signllava: Command, tmp_path: Path) -> None:
    ended = signllava("env", "--gpu-check", "--only", "run-folder", "--run-folder", tmp_path)
    assert ended.code == 2
    assert "PROBLEM  locks: " in ended.out
    assert "file system without locks (No locks available)" in ended.out
    assert "ok       writing: " in ended.out
    assert "locks" in ended.err


@pytest.mark.usefixtures("without_locks")
@pytest.mark.reliability("Faults", "a file system without locks costs a warning, and no result")
def test_processes_that_join_their_parts_at_the_same_time_need_no_lock(tmp_path: Path) -> None:
    ids, num_processes = [f"v/c{number}" for number in range(40)], 4

    def decode_and_join(folder: Path, number: int, barrier: threading.Barrier) -> bool:
        part = PredictionsFolder(folder, {"clips": len(ids)}, f"{number + 1}-of-{num_processes}")
        clips = [clip_id.removeprefix("v/") for clip_id in ids[number::num_processes]]
        rows = [Prediction("v", clip, 0, "translation", "", "Text.") for clip in clips]
        part.append(rows)
        barrier.wait()
        return part.join_parts(ids, seconds=1.0)

    for trial in range(25):
        folder, barrier = tmp_path / str(trial), threading.Barrier(num_processes, timeout=30)
        with ThreadPoolExecutor(num_processes) as pool:
            joins = [pool.submit(decode_and_join, folder, number, barrier) for number in range(num_processes)]
            assert any(join.result() for join in joins)
        assert [row.id for row in read_predictions(folder / PREDICTIONS_FILE)] == ids
        assert {path.name for path in folder.iterdir()} - {"parts", LOCK_FILE} == {PREDICTIONS_FILE, META_FILE}
        assert not list((folder / "parts").glob("*.jsonl"))
