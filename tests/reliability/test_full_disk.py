"""A disk that becomes full, or fails, at each write of a run in turn; see fault_shim.c.

Each trial is the real command, in which one call that writes below the run folder fails (and all later ones, as on a
full disk). Then the command is run again without a fault.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import sets
from faults import ALL_LATER, FaultedCommands, Ran

from signllava_cli.files import read_link, write_json
from signllava_cli.model.checkpoint import find_damage

pytest_plugins = ["fault_fixtures"]
pytestmark = pytest.mark.timeout(1800)
SHORT = ["train.max_steps=2", "train.save_steps=1", "train.eval_steps=2", "train.save_total_limit=1"]
TIMINGS = ("tokens_per_second", "data_wait_seconds", "seconds")
RecordProperty = Callable[[str, object], None]
Contents = dict[str, bytes]


def without_timings(line: str) -> str:
    values = json.loads(line)
    return json.dumps({key: value for key, value in values.items() if key not in TIMINGS})


def run_contents(run: Path) -> Contents:
    """The files of a run by name, without log, manifest, incomplete folders and timings; of a link its target."""
    contents = {}
    for file in sorted(run.rglob("*")):
        name = str(file.relative_to(run))
        if file.name in ("best", "last") and (target := read_link(file)):
            contents[name] = target.name.encode()
        elif (
            file.is_symlink() or file.is_dir() or file.name in (".lock", "log.txt", "manifest.json") or ".tmp" in name
        ):
            continue
        elif file.name == "metrics.jsonl":
            contents[name] = "\n".join(map(without_timings, file.read_text().splitlines())).encode()
        elif file.name == "progress.json":
            contents[name] = without_timings(file.read_text()).encode()
        else:
            contents[name] = file.read_bytes()
    return contents


def is_lock(file: Path) -> bool:
    return file.name.endswith(".lock")


def predictions_contents(folder: Path) -> Contents:
    contents = {}
    for file in (file for file in sorted(folder.rglob("*")) if file.is_file() and not is_lock(file)):
        is_meta = file.name == "predictions.meta.json"
        text = without_timings(file.read_text()) if is_meta else file.read_text()
        contents[str(file.relative_to(folder))] = text.encode()
    return contents


def index_contents(data: Path) -> Contents:
    files = [*data.glob("index.*.arrow"), *data.glob("index.*.parts/*.arrow")]
    return {str(file.relative_to(data)): file.read_bytes() for file in sorted(files)}


def pack_contents(data: Path) -> Contents:
    files = (file for file in sorted(data.glob("mae/*")) if file.suffix != ".tmp" and not is_lock(file))
    return {file.name: file.read_bytes() for file in files}


def assert_kept(run: Path, ran: Ran) -> None:
    """Every checkpoint that has its name is complete, and `last` and `best` are links to one."""
    for checkpoint in run.glob("step-??????"):
        assert find_damage(checkpoint) is None, (ran.failed_call, checkpoint)
    for link in ("best", "last"):
        assert not (run / link).is_symlink() or (run / link).exists(), (ran.failed_call, link)


def assert_one_error_line(ran: Ran) -> None:
    assert ran.code == 2, (ran.failed_call, ran.out)
    assert len(ran.error_lines) == 1, (ran.failed_call, ran.out)
    assert "Traceback" not in ran.out, ran.out
    file = ran.failed_call.split(" ", 1)[1]
    assert "input or output" not in ran.error_lines[0], (file, ran.out)


class Sweep:
    """Tries `words`, which writes the folder `out`, with a fault at each call of `calls`.

    A rerun depends only on what is in the folder, so it is tried once for each state in which a fault leaves it.
    """

    def __init__(
        self,
        commands: FaultedCommands,
        words: Sequence[object],
        out: Path,
        contents: Callable[[Path], Contents],
        assert_kept: Callable[[Path, Ran], None] = lambda out, ran: None,
        optional: tuple[str, ...] = (),
        source: Path | None = None,
    ) -> None:
        self.commands, self.words, self.out, self.contents = commands, words, out, contents
        self._assert_kept, self._optional, self._source = assert_kept, optional, source
        self._tried: set[str] = set()
        self.num_faults = 0
        self._start_over()
        commands.faults.set(prefix=out)
        ran = commands(*words)
        assert ran.code == 0, ran.out
        self.num_calls, self.expected = ran.num_calls, contents(out)

    def _start_over(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self._source is not None:
            shutil.copytree(self._source, self.out, symlinks=True)

    def try_calls(self, numbers: Iterable[int], error: int, is_lasting: bool) -> None:
        for number in numbers:
            self._start_over()
            last = ALL_LATER if is_lasting else number
            self.commands.faults.set(prefix=self.out, first=number, last=last, error=error)
            ran = self.commands(*self.words)
            assert ran.failed_call, f"call {number} of {self.num_calls} did not happen"
            self.num_faults += 1
            self._check(ran)
            self._run_again(ran)

    def _check(self, ran: Ran) -> None:
        call, file = ran.failed_call.split(" ", 1)
        if ran.code == 0:  # what failed was not needed
            is_optional = f"{call} {Path(file).name}" in self._optional or call in ("symlink", "mkdir")
            assert is_optional, (ran.failed_call, ran.out)
            assert self.contents(self.out) == self.expected, ran.failed_call
        else:
            assert_one_error_line(ran)
        if file.endswith("log.txt") and call == "write":
            assert f"warning: {file} cannot be written" in ran.out, ran.out
        self._assert_kept(self.out, ran)

    def _run_again(self, ran: Ran) -> None:
        left = json.dumps({name: hashlib.sha256(text).hexdigest() for name, text in self.contents(self.out).items()})
        if left in self._tried:
            return
        self._tried.add(left)
        self.commands.faults.set()
        again = self.commands(*self.words)
        assert again.code == 0, (ran.failed_call, again.out)
        assert self.contents(self.out) == self.expected, ran.failed_call

    def record(self, record_property: RecordProperty) -> None:
        record_property("failed calls", self.num_faults)
        record_property("reruns", len(self._tried))


def pretrain(
    commands: FaultedCommands, settings: list[str], run: Path, *more: str, source: Path | None = None
) -> Sweep:
    words = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *SHORT, f"run.output_dir={run}", *more])]
    return Sweep(commands, words, run, run_contents, assert_kept, ("write log.txt",), source)


FULL = pytest.mark.reliability(
    "Faults", "a disk that is full at any write of a training run loses nothing that was saved"
)
FAILS = pytest.mark.reliability("Faults", "a write that fails once ends a run in one line, or is not needed")
OTHERS = pytest.mark.reliability(
    "Faults", "a full disk costs generate, pack and index one line, and no byte of the result"
)


@FULL
@pytest.mark.drill
def test_pretrain_with_a_disk_that_becomes_full_at_each_write(
    commands: FaultedCommands, settings: list[str], tmp_path: Path, record_property: RecordProperty
) -> None:
    sweep = pretrain(commands, settings, tmp_path / "run", "train.preflight=false")
    sweep.try_calls(range(1, sweep.num_calls + 1), errno.ENOSPC, is_lasting=True)
    assert sweep.num_faults > 100
    sweep.record(record_property)


@FULL
@pytest.mark.drill
def test_a_resumed_run_with_a_disk_that_becomes_full(
    commands: FaultedCommands, settings: list[str], tmp_path: Path, record_property: RecordProperty
) -> None:
    """With the preflight, in a folder that holds a checkpoint of the first step; some of the writes."""
    run = tmp_path / "run"
    stopped = [*settings, *SHORT, "train.stop_at_step=1", f"run.output_dir={run}"]
    assert commands("pretrain", "-r", "toy/tiny_pretrain", *sets(stopped)).code == 75
    source = run.rename(tmp_path / "source")
    sweep = pretrain(commands, settings, run, source=source)
    sweep.try_calls(range(2, sweep.num_calls + 1, 7), errno.EDQUOT, is_lasting=True)
    sweep.record(record_property)


@FAILS
@pytest.mark.drill
@pytest.mark.parametrize(("name", "first", "stride"), [("EIO", 1, 4), ("ENOSPC", 2, 6), ("EDQUOT", 3, 12)])
def test_pretrain_with_one_write_that_fails(
    commands: FaultedCommands,
    settings: list[str],
    tmp_path: Path,
    record_property: RecordProperty,
    name: str,
    first: int,
    stride: int,
) -> None:
    sweep = pretrain(commands, settings, tmp_path / "run", "train.preflight=false")
    sweep.try_calls(range(first, sweep.num_calls + 1, stride), getattr(errno, name), is_lasting=False)
    sweep.record(record_property)


@OTHERS
@pytest.mark.drill
@pytest.mark.parametrize("is_lasting", [True, False], ids=["full", "once"])
def test_generate_with_a_disk_that_becomes_full_at_each_write(
    commands: FaultedCommands, run: Path, tmp_path: Path, record_property: RecordProperty, is_lasting: bool
) -> None:
    out = tmp_path / "out"
    words = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 2, "--beams", 1, "--out", out]
    sweep = Sweep(commands, words, out, predictions_contents)
    sweep.try_calls(range(1, sweep.num_calls + 1), errno.ENOSPC if is_lasting else errno.EIO, is_lasting)
    assert sweep.num_faults > 15
    sweep.record(record_property)


@OTHERS
@pytest.mark.drill
@pytest.mark.parametrize("is_lasting", [True, False], ids=["full", "once"])
def test_index_with_a_disk_that_becomes_full_at_each_write(
    commands: FaultedCommands, corpus: Path, tmp_path: Path, record_property: RecordProperty, is_lasting: bool
) -> None:
    source = shutil.copytree(
        corpus, tmp_path / "source", ignore=shutil.ignore_patterns("index.*", "pose", "sign2vec")
    )
    data = tmp_path / "data"
    sweep = Sweep(commands, ["prepare", "index", data, "--split", "dev"], data, index_contents, source=source)
    sweep.try_calls(range(1, sweep.num_calls + 1), errno.ENOSPC if is_lasting else errno.EIO, is_lasting)
    assert sweep.num_faults > 15
    sweep.record(record_property)


@OTHERS
@pytest.mark.drill
def test_pack_with_a_disk_that_becomes_full(
    commands: FaultedCommands, tmp_path: Path, record_property: RecordProperty
) -> None:
    features, source, data = tmp_path / "features", tmp_path / "source", tmp_path / "data"
    clips = {f"r{number}": [f"r{number}c{clip}" for clip in range(2)] for number in range(2)}
    for recording, names in clips.items():
        (features / recording).mkdir(parents=True)
        for name in names:
            np.save(features / recording / f"{name}.npy", np.full((3, 4), 0.5, np.float32))
    content = {
        recording: {"clip_order": names, **{name: {"translation": "Hello."} for name in names}}
        for recording, names in clips.items()
    }
    write_json(source / "annotation.train.json", content)
    words = ["prepare", "pack", features, "--stream", "mae", "--out", data, "--split", "train", "--shard-mb", 0]
    sweep = Sweep(commands, [*words, "--workers", 1], data, pack_contents, source=source)
    sweep.try_calls(range(1, sweep.num_calls + 1), errno.ENOSPC, is_lasting=True)
    sweep.try_calls(range(4, sweep.num_calls + 1, 14), errno.EIO, is_lasting=False)
    sweep.record(record_property)
