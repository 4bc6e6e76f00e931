"""`prepare pack` after a kill or signal: files with final names are complete, and a rerun continues."""

import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import interrupted, kill_when_stopped, subprocess_command, wait_until_stopped
from test_pack import annotate

RECORDINGS, CLIPS = 16, 10  # a shard for each recording, so that many are unfinished when the process is killed
Moment = tuple[str, str, int]  # event, pattern and count of `interrupted`
IN_A_SHARD: Moment = ("open", "c*.json", CLIPS + CLIPS // 2)  # a worker reads a clip of its second shard


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keypoint JSON, which is slow to read: seven files, one of them faulty, linked as many clips."""
    folder = tmp_path_factory.mktemp("keypoints")
    rng = np.random.default_rng(0)
    for number in range(7):
        frames = [
            {
                "pose_landmarks": rng.integers(0, 1280, (33, 2)).tolist(),
                "face_landmarks": rng.integers(0, 1280, (478, 2)).tolist() if number else [[0, 0]],
            }
            for _ in range(12)
        ]
        (folder / f"{number}.base").write_text(json.dumps({"keypoints": frames}))
    for number in range(RECORDINGS * CLIPS):
        os.link(folder / f"{number % 7}.base", folder / f"c{number}.json")
    return folder


def data_folder(root: Path) -> Path:
    clips_of = {f"rec{r}": [f"c{r * CLIPS + c}" for c in range(CLIPS)] for r in range(RECORDINGS)}
    return annotate(root, clips_of)


def start(source: Path, data: Path, **options: object) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    args = [source, "--stream", "mae", "--out", data, "--split", "train", "--shard-mb", 0, "--workers", 2]
    return subprocess_command("prepare", "pack", *args, start_new_session=True, **options)


def finish(source: Path, data: Path) -> str:
    process = start(source, data)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def uninterrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a pack that ran without interruption."""
    data = data_folder(tmp_path_factory.mktemp("uninterrupted"))
    finish(source, data)
    return contents(data)


def contents(data: Path) -> dict[str, bytes]:
    """The files under final names."""
    files = (data / "mae").glob("[!.]*") if (data / "mae").exists() else []
    return {file.name: file.read_bytes() for file in files if file.suffix != ".tmp"}


def shards(data: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of each shard."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in (data / "mae").glob("*.h5")}


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def running_processes(group: int) -> list[str]:
    """The running processes of a process group."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # the process has ended
            continue
        if int(process_group) == group and state != "Z":
            processes.append(stat.parent.name)
    return processes


def kill_at(moment: Moment, source: Path, data: Path, parent_only: bool) -> int:
    """Stop a pack at `moment` and kill it, its workers too unless `parent_only`; its process group."""
    event, pattern, count = moment
    process = start(source, data, env=interrupted(pattern, count, signal.SIGSTOP, event))
    kill_when_stopped(process, parent_only)
    return process.pid


def drill(source: Path, data: Path, expected: dict[str, bytes], moments: Iterable[Moment], parent_only: bool) -> None:
    """Kill the command and run it again several times in one folder; then let it finish."""
    groups = []
    for moment in moments:
        before = shards(data)
        groups.append(kill_at(moment, source, data, parent_only))
        for name, content in contents(data).items():
            assert content == expected[name], name  # complete, and the same as without a kill
        assert before.items() <= shards(data).items()
    before = shards(data)
    finish(source, data)
    assert before.items() <= shards(data).items()
    assert contents(data) == expected
    until(lambda: not any(running_processes(group) for group in groups), seconds=60)
    finish(source, data)  # removes temporary files of orphaned workers
    assert not list((data / "mae").glob("*.tmp"))
    assert contents(data) == expected


@pytest.mark.drill
@pytest.mark.parametrize("parent_only", [pytest.param(False, id="the group"), pytest.param(True, id="the parent")])
@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_pack_leaves_complete_shards_and_continues(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path, parent_only: bool
) -> None:
    """Kills in the middle of a shard, before a shard is renamed, and before the metadata is renamed."""
    moments = [IN_A_SHARD, ("rename", "mae.train.*.h5", 4), ("rename", "metadata_mae.train.json", 1)]
    drill(source, data_folder(tmp_path), uninterrupted, moments, parent_only)


@pytest.mark.drill
@pytest.mark.parametrize("parent_only", [False, True], ids=["the group", "the parent"])
def test_a_pack_killed_twenty_times(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path, parent_only: bool
) -> None:
    data, rng = data_folder(tmp_path), random.Random(7 + parent_only)

    def moments() -> Iterator[Moment]:
        for kill in range(20):
            left = RECORDINGS - len(shards(data))
            if left > 2:
                yield ("rename", "mae.train.*.h5", rng.randint(1, 2)) if kill % 2 else IN_A_SHARD
            else:
                yield ("rename", "metadata_mae.train.json", 1)
                for file in (data / "mae").glob("*mae*"):
                    file.unlink()

    drill(source, data, uninterrupted, moments(), parent_only)


def test_the_uninterrupted_pack_has_every_clip(uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    pack_report = json.loads(uninterrupted["pack.mae.train.json"])
    assert pack_report["shards"] == RECORDINGS
    assert pack_report["clips_packed"] + len(pack_report["faulty"]) == RECORDINGS * CLIPS
    assert len(pack_report["faulty"]) == 23
    (tmp_path / "x.h5").write_bytes(uninterrupted["mae.train.3.h5"])
    with h5py.File(tmp_path / "x.h5") as file:
        assert sum(len(clips) for clips in file.values()) in (8, 9)


@pytest.mark.parametrize(
    ("number", "to_group"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.drill),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.drill),
    ],
)
def test_a_signal_stops_pack_before_the_next_shards_without_temporary_files(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path, number: signal.Signals, to_group: bool
) -> None:
    data = data_folder(tmp_path)
    process = start(source, data, env=interrupted("mae.train.*.h5", 2, signal.SIGSTOP, "rename"))
    wait_until_stopped(process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    os.killpg(process.pid, signal.SIGCONT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 75, out
    assert f"stopped by {number.name}" in out
    assert "run the same command again" in out
    assert "Traceback" not in out
    assert not list((data / "mae").glob("*.tmp"))
    until(lambda: not running_processes(process.pid))  # the resource tracker of multiprocessing ends last
    before = shards(data)
    assert 0 < len(before) < RECORDINGS
    assert f"writing {RECORDINGS - len(before)} of {RECORDINGS} shards" in finish(source, data)
    assert before.items() <= shards(data).items()
    assert contents(data) == uninterrupted


@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_worker_is_an_error_and_the_same_command_continues(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    data = data_folder(tmp_path)
    process = start(source, data)
    until(lambda: list((data / "mae").glob("*.h5.*.tmp")))
    worker = next((data / "mae").glob("*.h5.*.tmp")).name.split(".")[-2]
    os.kill(int(worker), signal.SIGKILL)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 2, out
    assert "A worker process was killed" in out
    assert "Traceback" not in out
    finish(source, data)
    assert contents(data) == uninterrupted


@pytest.mark.drill
@pytest.mark.parametrize("kib", [4, 20, 40])
@pytest.mark.reliability("Faults", "a full disk costs generate, pack and index one line, and no byte of the result")
def test_a_full_disk_is_a_one_line_error_and_the_same_command_continues(
    source: Path, uninterrupted: dict[str, bytes], tmp_path: Path, kib: int
) -> None:
    """A limit on the file size simulates the full disk; HDF5 itself would print tracebacks, or crash."""
    bound = kib * 1024
    assert bound < min(len(content) for name, content in uninterrupted.items() if name.endswith(".h5"))
    data = data_folder(tmp_path)
    process = start(source, data, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound)))
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 2, out
    assert out.splitlines()[-1].startswith("error: ")
    assert out.splitlines()[-1].endswith("h5 cannot be written: File too large.")
    assert "Traceback" not in out
    assert not list((data / "mae").glob("*.h5*"))
    finish(source, data)
    assert contents(data) == uninterrupted
