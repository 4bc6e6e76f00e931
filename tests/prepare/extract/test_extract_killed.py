"""`prepare extract` after kills and signals: complete recordings are kept, and the bytes are those without a kill."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import (
    MadeOnce,
    interrupted,
    kill_when_stopped,
    subprocess_command,
    wait_until_gone,
    wait_until_stopped,
)
from numbers_extractor import write_numbered
from real_clips import CLIPS, clip_file, model_file, needs_samples
from test_extract import REAL_CUTS, annotate

RECORDINGS, CLIPS_OF_EACH, WORKERS = 6, 2, 2
Moment = tuple[str, str, int]  # event, pattern and count of `interrupted`
IN_A_RECORDING: Moment = ("append", "log", CLIPS_OF_EACH + 1)  # a worker has extracted a clip of its second recording
FINAL_FILES = ("*.h5", "metadata_*.json", "extract.*.json", "pack.numbers.train.json")


@pytest.fixture(scope="session")
def videos(made_once: MadeOnce) -> Path:
    def make(folder: Path) -> None:
        for number in range(RECORDINGS):
            write_numbered(folder / f"rec{number}.mp4", 30 + number)

    return made_once("killed_videos", make)


def data_folder(root: Path) -> Path:
    cuts = {f"c{clip}": (0.4 * clip, 0.4 * clip + 0.4) for clip in range(CLIPS_OF_EACH)}
    cuts_of = {
        f"rec{number}": {f"r{number}{name}": cut for name, cut in cuts.items()} for number in range(RECORDINGS)
    }
    return annotate(root, cuts_of)


def start(videos: Path, data: Path, shard: str = "all", **options: object) -> subprocess.Popen[str]:
    """The extraction of stream numbers, in a process group of its own."""
    script = Path(__file__).with_name("numbers_extractor.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(videos), str(data), str(WORKERS), shard],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def finish(videos: Path, data: Path) -> str:
    process = start(videos, data)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    return str(out)


def contents(data: Path) -> dict[str, bytes]:
    """The final files of the stream, and the boxes and times beside it."""
    folder = data / "numbers"
    files = [file for pattern in FINAL_FILES for file in folder.glob(pattern)]
    files += (folder / "extract.train/arrays").glob("*.h5")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def extracted(data: Path) -> dict[str, int]:
    """Inode of the complete features of each recording."""
    return {file.name: file.stat().st_ino for file in (data / "numbers/extract.train/features").glob("*.h5")}


def num_clips_extracted(data: Path) -> int:
    return len((data / "log").read_text().splitlines()) if (data / "log").exists() else 0


@pytest.fixture(scope="session")
def uninterrupted(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    data = data_folder(tmp_path_factory.mktemp("uninterrupted"))
    finish(videos, data)
    assert num_clips_extracted(data) == RECORDINGS * CLIPS_OF_EACH
    files = contents(data)
    assert len(files) == RECORDINGS + 3 + RECORDINGS
    return files


def kill_at(moment: Moment, videos: Path, data: Path, parent_only: bool) -> None:
    """Stop the command at `moment` and kill it, its workers too unless `parent_only`."""
    event, pattern, count = moment
    kill_when_stopped(start(videos, data, env=interrupted(pattern, count, signal.SIGSTOP, event)), parent_only)


def drill(
    videos: Path, data: Path, expected: dict[str, bytes], moments: Iterable[Moment], parent_only: bool = False
) -> None:
    """Kill the command again and again in one folder; then let it finish."""
    num_kills = 0
    for moment in moments:
        before = extracted(data)
        num_done = num_clips_extracted(data)
        kill_at(moment, videos, data, parent_only)
        num_kills += 1
        for name, content in contents(data).items():
            assert content == expected[name], name  # complete, and the same as without a kill
        after = extracted(data)
        assert before.items() <= after.items() or not after
        num_new = (len(after) - len(before)) * CLIPS_OF_EACH
        assert num_clips_extracted(data) - num_done <= num_new + WORKERS * CLIPS_OF_EACH
    finish(videos, data)
    assert contents(data) == expected
    lost = num_clips_extracted(data) - RECORDINGS * CLIPS_OF_EACH
    assert lost <= num_kills * WORKERS * CLIPS_OF_EACH
    assert not list(data.rglob("*.tmp"))
    assert not (data / "numbers/extract.train/features").exists()


@pytest.mark.drill
@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_extraction_continues_with_the_next_recording(
    videos: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Kills within a recording, before its file, a shard, the metadata and the report get their names."""
    moments = [IN_A_RECORDING, ("rename", "rec*.h5", 2), ("rename", "numbers.train.*.h5", 2)]
    moments += [("rename", "metadata_numbers.train.json", 1), ("rename", "extract.numbers.train.json", 1)]
    drill(videos, data_folder(tmp_path), uninterrupted, moments)


@pytest.mark.drill
@pytest.mark.parametrize("parent_only", [False, True], ids=["the group", "the parent"])
def test_an_extraction_killed_twenty_times(
    videos: Path, uninterrupted: dict[str, bytes], tmp_path: Path, parent_only: bool
) -> None:
    data, rng = data_folder(tmp_path), random.Random(parent_only)

    def moments() -> Iterator[Moment]:
        for kill in range(20):
            if RECORDINGS - len(extracted(data)) >= 3:
                yield rng.choice(
                    [("append", "log", 1), ("append", "log", 2), ("rename", "rec*.h5", 1), IN_A_RECORDING]
                )
            elif kill % 2:
                yield ("rename", "numbers.train.*.h5", 1)
            else:
                yield ("rename", rng.choice(["metadata_numbers.train.json", "extract.numbers.train.json"]), 1)
                for file in (data / "numbers").rglob("*"):
                    if file.is_file():
                        file.unlink()
                (data / "log").unlink()

    drill(videos, data, uninterrupted, moments(), parent_only)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.drill)])
def test_a_signal_stops_the_command_and_says_how_to_continue(
    videos: Path, uninterrupted: dict[str, bytes], tmp_path: Path, number: signal.Signals
) -> None:
    data = data_folder(tmp_path)
    process = start(videos, data, env=interrupted("log", CLIPS_OF_EACH + 1, signal.SIGSTOP))
    family = wait_until_stopped(process)
    os.kill(process.pid, number)
    for member in family:
        member.resume()
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 75, out
    assert f"stopped by {number.name}" in out
    assert "not extracted yet; run the same command again" in out
    assert "Traceback" not in out
    before = extracted(data)
    assert 0 < len(before) < RECORDINGS
    assert f"{len(before)} of {RECORDINGS} recordings were extracted before" in finish(videos, data)
    assert contents(data) == uninterrupted


@pytest.mark.drill
@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_worker_is_an_error_and_the_same_command_continues(
    videos: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Killed from outside, as by the system when memory runs out: no clip is to blame."""
    data = data_folder(tmp_path)
    process = start(videos, data, env=interrupted("log", 2, signal.SIGKILL))
    out = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "A worker process ended by SIGKILL" in out
    finish(videos, data)
    assert contents(data) == uninterrupted


@pytest.mark.drill
@pytest.mark.reliability("Faults", "of two commands that write one folder, the second is refused")
def test_a_second_extraction_is_refused_and_the_first_goes_on(
    videos: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    data = data_folder(tmp_path)
    first = start(videos, data, env=interrupted("log", CLIPS_OF_EACH + 1, signal.SIGSTOP))
    family = wait_until_stopped(first)
    second = start(videos, data)
    out = second.communicate(timeout=120)[0]
    assert second.returncode != 0
    assert "Another process" in out.strip().splitlines()[-1]
    wait_until_gone(family, seconds=300)
    out = first.communicate(timeout=120)[0]
    assert first.returncode == 0, out
    assert contents(data) == uninterrupted


@needs_samples
@pytest.mark.drill
def test_the_command_stopped_by_a_signal_gives_the_same_bytes(tmp_path: Path) -> None:
    words = ["prepare", "extract", clip_file(CLIPS[0]).parent, "--split", "train", "--pose-model", model_file()]
    folders = [annotate(tmp_path / name, REAL_CUTS) for name in ("whole", "stopped")]
    out = subprocess_command(*words, "--out", folders[0], "--workers", 1).communicate()[0]
    env = interrupted("rec.h5", 1, signal.SIGSTOP, "rename")
    process = subprocess_command(*words, "--out", folders[1], "--workers", 1, env=env, start_new_session=True)
    family = wait_until_stopped(process)
    process.terminate()
    for member in family:
        member.resume()
    out = process.communicate()[0]
    assert process.returncode == 75, out
    process = subprocess_command(*words, "--out", folders[1], "--workers", 1)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert "1 of 2 recordings were extracted before" in out
    for name in ("pose.train.0.h5", "metadata_pose.train.json", "extract.pose.train.json"):
        assert (folders[0] / "pose" / name).read_bytes() == (folders[1] / "pose" / name).read_bytes()
