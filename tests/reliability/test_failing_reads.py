"""Reads of shards that fail or are slow, below HDF5 and Python: a shim in C makes them so."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MadeOnce, sets
from toy_runs import PRETRAIN, SETTINGS, STEPS, assert_same_end, compressed_corpus, expected_run, indexed

from signllava_cli.data.shard import list_shard
from signllava_cli.errors import UserError

__all__ = ["compressed_corpus", "expected_run"]  # fixtures
SOURCE = Path(__file__).with_name("failing_reads.c")
EIO, ESTALE = 5, 116


@pytest.fixture(scope="session")
def shim(made_once: MadeOnce) -> Path:
    """The compiled shim."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")

    def make(folder: Path) -> None:
        folder.mkdir()
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    return made_once("shim", make) / "shim.so"


def run_with(
    shim: Path, *command: object, timeout: float = 400, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "signllava_cli", *map(str, command)],
        env={**os.environ, "LD_PRELOAD": str(shim), **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a read that fails once is repeated, and changes nothing")
@pytest.mark.parametrize(("layout", "number", "workers"), [("compressed_corpus", EIO, 0), ("corpus", ESTALE, 2)])
def test_a_read_that_fails_once_is_repeated(
    request: pytest.FixtureRequest,
    settings: list[str],
    shim: Path,
    tiny_llm: Path,
    expected_run: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    layout: str,
    number: int,
    workers: int,
) -> None:
    data = indexed(request.getfixturevalue(layout), tiny_llm)
    more = [f"data.root={data}", f"data.num_workers={workers}"]
    ended = run_with(shim, *PRETRAIN, *sets([*settings, *SETTINGS, *more]), FAILING_READS=f"{number}:20:1:-1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    warnings = re.findall(r"warning: .*reading clip .* failed \((.*)\); it is repeated after 1 s .*", ended.stdout)
    assert set(warnings) == {os.strerror(number)}
    assert 1 <= len(warnings) <= 1 + workers  # each process counts its own reads
    assert (tmp_path / "run" / "log.txt").read_text().count("it is repeated after") == len(warnings)
    assert_same_end(expected_run, tmp_path / "run")
    record_property("failed reads", len(warnings))


@pytest.mark.drill
@pytest.mark.reliability("Faults", "reads that go on failing end the run in one line, and it resumes")
def test_reads_that_go_on_failing_end_the_run_in_one_line(
    settings: list[str], shim: Path, corpus: Path, tiny_llm: Path, expected_run: Path, tmp_path: Path
) -> None:
    """In the loader workers: the processes of a run count their reads apart, and the main process has few."""
    more = [f"data.root={indexed(corpus, tiny_llm)}", "data.num_workers=2", "train.save_steps=1"]
    command = [*PRETRAIN, *sets([*settings, *SETTINGS, *more])]
    ended = run_with(shim, *command, FAILING_READS=f"{EIO}:40:-1:-1")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    (line,) = ended.stderr.splitlines()
    assert re.search(r"train.[01].h5 cannot be read at clip .* \(Input/output error, 4 times\)", line)
    saved = (tmp_path / "run" / "last").resolve().name
    assert 0 < int(saved.removeprefix("step-")) < STEPS
    ended = run_with(shim, *command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"run/{saved} at step" in ended.stdout
    assert_same_end(expected_run, tmp_path / "run")


@pytest.mark.drill
@pytest.mark.reliability("Faults", "when the disk of one rank fails, the other ends too, and the run resumes")
def test_the_failing_disk_of_one_rank_ends_the_other(
    settings: list[str],
    shim: Path,
    corpus: Path,
    tiny_llm: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    more = [f"data.root={indexed(corpus, tiny_llm)}", "train.micro_batch_size=2", "train.preflight=false"]
    command = [*PRETRAIN, *sets([*settings, *SETTINGS, *more]), "--launch", "multi_cpu"]
    ended = run_with(shim, *command, FAILING_READS=f"{EIO}:18:-1:1")
    seconds_after_save = time.time() - (tmp_path / "run" / "last").resolve().stat().st_mtime
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert re.search(
        r"error: .*train.[01].h5 cannot be read at clip .* \(Input/output error, 4 times\)", ended.stderr
    )
    assert "Traceback" not in ended.stderr
    assert seconds_after_save < 240  # 7 s of repeated reads, then 30 s each for the message and for the other rank
    record_property("seconds to the end", seconds_after_save)
    ended = run_with(shim, *command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "resumed from" in ended.stdout


@pytest.mark.drill
@pytest.mark.reliability("Faults", "the time that a run waits for slow reads is reported")
@pytest.mark.parametrize("workers", [0, 2])
def test_slow_reads_are_reported(
    settings: list[str], shim: Path, corpus: Path, tiny_llm: Path, expected_run: Path, tmp_path: Path, workers: int
) -> None:
    """A step has 4 clips of 2 streams, each of one read."""
    more = [f"data.root={indexed(corpus, tiny_llm)}", f"data.num_workers={workers}", "train.preflight=false"]
    ended = run_with(shim, *PRETRAIN, *sets([*settings, *SETTINGS, *more]), SLOW_READS="250")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    waited = sum(line.get("data_wait_seconds", 0) for line in lines)
    assert waited > 8 * 0.25 * STEPS / (workers or 1) / 2
    (summary,) = re.findall(r"([0-9]+) s of them waiting for data", ended.stdout)
    assert abs(int(summary) - waited) <= 1
    assert_same_end(expected_run, tmp_path / "run")


@pytest.mark.reliability("Faults", "an index that is built while reads fail is not built wrong")
def test_a_failing_read_does_not_become_a_broken_link_in_the_index(
    shim: Path, compressed_corpus: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each read of the listing of a shard fails in turn."""
    (shard,) = compressed_corpus.glob("mae/mae.train.0.h5")
    script = (
        "import sys; from pathlib import Path; from signllava_cli.data.shard import list_shard\n"
        "import ctypes, os\n"
        "from signllava_cli.errors import UserError\n"
        "setenv = ctypes.CDLL(None).setenv\n"
        "for skip in range(int(sys.argv[2])):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        setenv(b'FAILING_READS', b'5:%d:1:-1' % skip, 1)\n"
        "        try:\n"
        "            print('listed', len(list(list_shard(Path(sys.argv[1])))), flush=True)\n"
        "        except UserError as error:\n"
        "            print('error', error, flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    num_reads, num_clips = 60, len(list(list_shard(shard)))
    ended = subprocess.run(
        [sys.executable, "-c", script, str(shard), str(num_reads)],
        env={**os.environ, "LD_PRELOAD": str(shim), "FAILING_READS": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    lines = ended.stdout.splitlines()
    assert len(lines) == num_reads, ended.stdout
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) > num_reads / 2
    assert all("cannot be read (Input/output error); check the disk" in line for line in errors), errors
    assert {line for line in lines if line not in errors} <= {f"listed {num_clips}"}
    record_property("failed reads", len(errors))


def test_a_shard_that_is_not_hdf5_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\0" * 5000)
    with pytest.raises(UserError, match=r"a.h5 is not a valid HDF5 file \([^\n]*\); copy it") as raised:
        list(list_shard(tmp_path / "a.h5"))
    assert "\n" not in str(raised.value)
