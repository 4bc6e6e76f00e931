"""`prepare pack` after a kill or signal: files with final names are complete, and a rerun continues."""

import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import subprocess_command
from test_pack import annotate

RECORDINGS, CLIPS = 16, 10  # a shard for each recording, so that many are unfinished when the process is killed


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
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """Every file of an uninterrupted pack, and its duration in seconds."""
    data = data_folder(tmp_path_factory.mktemp("undisturbed"))
    start_time = time.monotonic()
    finish(source, data)
    return contents(data), time.monotonic() - start_time


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


def drill(
    source: Path, data: Path, undisturbed: tuple[dict[str, bytes], float], kills: int, seed: int, parent_only: bool
) -> None:
    """Kill the command and run it again several times in one folder; then let it finish."""
    expected, seconds = undisturbed
    rng = random.Random(seed)
    groups = []
    for _ in range(kills):
        before = shards(data)
        process = start(source, data)
        groups.append(process.pid)
        time.sleep(rng.uniform(0.25, 1.0) * seconds)
        if parent_only:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name, content in contents(data).items():
            assert content == expected[name], name
        assert before.items() <= shards(data).items()
        if "metadata_mae.train.json" in contents(data):
            for file in (data / "mae").glob("*mae*"):
                file.unlink()
    before = shards(data)
    finish(source, data)
    assert before.items() <= shards(data).items()
    assert contents(data) == expected
    until(lambda: not any(running_processes(group) for group in groups), seconds=20)
    finish(source, data)  # removes temporary files of orphaned workers
    assert not list((data / "mae").glob("*.tmp"))
    assert contents(data) == expected


@pytest.mark.parametrize("parent_only", [False, True], ids=["the group", "the parent"])
def test_a_killed_pack_leaves_complete_shards_and_continues(
    source: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, parent_only: bool
) -> None:
    drill(source, data_folder(tmp_path), undisturbed, kills=3, seed=int(parent_only), parent_only=parent_only)


@pytest.mark.drill
@pytest.mark.parametrize("parent_only", [False, True], ids=["the group", "the parent"])
def test_a_pack_killed_twenty_times(
    source: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, parent_only: bool
) -> None:
    drill(source, data_folder(tmp_path), undisturbed, kills=20, seed=7 + parent_only, parent_only=parent_only)


def test_the_uninterrupted_pack_has_every_clip(undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    files, _ = undisturbed
    pack_report = json.loads(files["pack.mae.train.json"])
    assert pack_report["shards"] == RECORDINGS
    assert pack_report["clips_packed"] + len(pack_report["faulty"]) == RECORDINGS * CLIPS
    assert len(pack_report["faulty"]) == 23
    (tmp_path / "x.h5").write_bytes(files["mae.train.3.h5"])
    with h5py.File(tmp_path / "x.h5") as file:
        assert sum(len(clips) for clips in file.values()) in (8, 9)


@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_a_signal_stops_pack_within_seconds_without_temporary_files(
    source: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, number: signal.Signals, to_group: bool
) -> None:
    data = data_folder(tmp_path)
    process = start(source, data)
    until(lambda: shards(data))
    (os.killpg if to_group else os.kill)(process.pid, number)
    start_time = time.monotonic()
    out = process.communicate(timeout=60)[0]
    assert time.monotonic() - start_time < 15  # usually far less, but the machine may be busy
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
    assert contents(data) == undisturbed[0]


def test_a_killed_worker_is_an_error_and_the_same_command_continues(
    source: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
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
    assert contents(data) == undisturbed[0]


@pytest.mark.parametrize("kib", [4, 20, 40])
def test_a_full_disk_is_a_one_line_error_and_the_same_command_continues(
    source: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, kib: int
) -> None:
    """A limit on the file size simulates the full disk; HDF5 itself would print tracebacks, or crash."""
    bound = kib * 1024
    assert bound < min(len(content) for name, content in undisturbed[0].items() if name.endswith(".h5"))
    data = data_folder(tmp_path)
    process = start(source, data, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound)))
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 2, out
    assert out.splitlines()[-1].startswith("error: ")
    assert out.splitlines()[-1].endswith("h5 cannot be written: File too large.")
    assert "Traceback" not in out
    assert not list((data / "mae").glob("*.h5*"))
    finish(source, data)
    assert contents(data) == undisturbed[0]
