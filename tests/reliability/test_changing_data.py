"""Data that changes while a run or `generate` reads it: no wrong features are used; the run goes on or resumes."""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
from conftest import Ended, sets
from toy_runs import PRETRAIN, SETTINGS, STEPS, assert_same_end, compressed_corpus, expected_run, indexed

from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import PredictionsFolder
from signllava_cli.training import loop

__all__ = ["compressed_corpus", "expected_run"]  # fixtures
Command = Callable[..., Ended]
Change = Callable[[Path], None]
STEP_OF_CHANGE = 3  # with loader workers, some later batches are already read
SHARDS = [f"{stream}/{stream}.train.{number}.h5" for stream in ("mae", "sign2vec") for number in (0, 1)]


def add_to_frames(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        for recording in file.values():
            for clip in recording.values():
                clip[...] = clip[...] + 1


def replace_with(change: Change, shard: Path) -> None:
    other = shard.with_name("other")
    shutil.copy(shard, other)
    change(other)
    other.replace(shard)


def drop_recording(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file[min(file)]


def overwrite(shard: Path) -> None:
    """Other values of the same size, in place. (HDF5 refuses to write a file that this process reads.)"""
    other = shard.with_name("other")
    shutil.copy(shard, other)
    add_to_frames(other)
    with open(shard, "r+b") as file:
        file.write(other.read_bytes())


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwrite_index(data: Path) -> None:
    """The index of another split, written in place."""
    (data / "index.train.arrow").write_bytes((data / "index.dev.arrow").read_bytes())


def reword(data: Path) -> None:
    file = data / "annotation.train.json"
    other = file.with_name("other")
    other.write_text(file.read_text().replace("grandmother", "grandfather"))
    other.replace(file)


def replace_index(data: Path) -> None:
    """The index of another split."""
    shutil.copy(data / "index.dev.arrow", data / "other")
    (data / "other").replace(data / "index.train.arrow")


def of_shards(change: Change) -> Change:
    def change_all(data: Path) -> None:
        for shard in SHARDS:
            change(data / shard)

    return change_all


HARMLESS: dict[str, Change] = {  # the run reads on in the open files
    "shards are removed": of_shards(Path.unlink),
    "shards are replaced": of_shards(lambda shard: replace_with(add_to_frames, shard)),
    "shards are replaced by smaller ones": of_shards(lambda shard: replace_with(drop_recording, shard)),
    "the annotation is replaced": reword,
    "the index is replaced": replace_index,
}
HARMFUL: dict[str, tuple[Change, str, str]] = {  # with the error of the run, and that of the run after it
    "shards are rewritten in place": (
        of_shards(overwrite),
        r".train.[01].h5 has changed since the split was opened; restore it",
        "was trained on other data",
    ),
    "shards are truncated": (
        of_shards(halve),
        r".train.[01].h5 has changed since the split was opened; restore it",
        "is not a valid HDF5 file",
    ),
    "the index is overwritten": (
        overwrite_index,
        r"index.train.arrow was overwritten while it was in use; run the command again",
        "",
    ),
}


def change_at_step(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Call `change` once, before the step `STEP_OF_CHANGE` of a run."""
    seed_step = loop.seed_step
    calls: list[int] = []

    def seed_and_change(seed: int, step: int, rank: int) -> None:
        if step == STEP_OF_CHANGE and not calls:
            calls.append(step)
            change()
        seed_step(seed, step, rank)

    monkeypatch.setattr(loop, "seed_step", seed_and_change)


WITH_WORKERS = ("shards are replaced", "shards are rewritten in place")


def drills_but(quick: str, cases: dict[str, Any]) -> list[Any]:
    """Each case with shards read directly, some also through HDF5 and with loader workers; all but one are drills."""
    chosen = [(case, "direct", 0) for case in cases]
    chosen += [(case, "hdf5", 0) for case in cases if case.startswith("shards")]
    chosen += [(case, "direct", 2) for case in cases if case in WITH_WORKERS]
    return [
        pytest.param(
            *each, id=" ".join(map(str, each)), marks=[] if each == (quick, "direct", 0) else pytest.mark.drill
        )
        for each in chosen
    ]


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path, layout: str, tiny_llm: Path) -> Path:
    """A copy of the corpus with its indices."""
    source = request.getfixturevalue("corpus" if layout == "direct" else "compressed_corpus")
    return Path(shutil.copytree(indexed(source, tiny_llm), tmp_path / "data"))


@pytest.mark.reliability("Faults", "data that are removed or replaced while a run reads them do not change it")
@pytest.mark.parametrize(("case", "layout", "workers"), drills_but("shards are removed", HARMLESS))
def test_a_run_reads_on_in_files_that_are_removed_or_replaced(
    signllava: Command,
    settings: list[str],
    data: Path,
    expected_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    case: str,
    workers: int,
) -> None:
    change_at_step(monkeypatch, lambda: HARMLESS[case](data))
    more = [f"data.root={data}", f"data.num_workers={workers}"]
    ended = signllava(*PRETRAIN, *sets([*settings, *SETTINGS, *more]))
    assert ended.code == 0, ended.err
    assert_same_end(expected_run, tmp_path / "run")
    record_property("changed files", 1 if case.startswith("the ") else len(SHARDS))


@pytest.mark.reliability("Faults", "a run notices data that are rewritten under it, ends in one line, and resumes")
@pytest.mark.parametrize(("case", "layout", "workers"), drills_but("shards are rewritten in place", HARMFUL))
def test_a_run_notices_files_that_are_written_in_place_and_resumes_when_they_are_restored(
    signllava: Command,
    settings: list[str],
    data: Path,
    expected_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    case: str,
    workers: int,
) -> None:
    change, message, message_of_rerun = HARMFUL[case]
    shutil.copytree(data, tmp_path / "backup")
    change_at_step(monkeypatch, lambda: change(data))
    command = [*PRETRAIN, *sets([*settings, *SETTINGS, f"data.root={data}", f"data.num_workers={workers}"])]
    run = tmp_path / "run"
    ended = signllava(*command)
    assert_one_line_error(ended, message)
    saved_step = int((run / "last").resolve().name.removeprefix("step-"))
    assert STEP_OF_CHANGE - 1 <= saved_step < STEPS
    if message_of_rerun:
        ended = signllava(*command)
        assert_one_line_error(ended, message_of_rerun)
        shutil.copytree(tmp_path / "backup", data, dirs_exist_ok=True)
    ended = signllava(*command)
    assert ended.code == 0, ended.err
    assert f"resumed from {run / f'step-{saved_step:06d}'} at step {saved_step}" in ended.out
    assert_same_end(expected_run, run)
    record_property("changed files", 1 if case.startswith("the ") else len(SHARDS))


def assert_one_line_error(ended: Ended, message: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    assert re.search(message, ended.err), ended.err


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a run notices data that are rewritten under it, ends in one line, and resumes")
@pytest.mark.parametrize(("layout", "is_removed"), [("direct", True), ("hdf5", False)])
def test_a_shard_that_was_closed_is_not_opened_again_if_it_is_another_one(
    signllava: Command,
    settings: list[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_removed: bool,
) -> None:
    """As with more shards than a process keeps open."""
    monkeypatch.setattr("signllava_cli.data.open_shards.MAX_OPEN_FILES", 1)
    case = "shards are removed" if is_removed else "shards are replaced"
    change_at_step(monkeypatch, lambda: HARMLESS[case](data))
    ended = signllava(*PRETRAIN, *sets([*settings, *SETTINGS, f"data.root={data}"]))
    assert_one_line_error(ended, ".h5 was removed after" if is_removed else ".h5 has changed since")
    saved_step = int((tmp_path / "run" / "last").resolve().name.removeprefix("step-"))
    assert STEP_OF_CHANGE - 1 <= saved_step < STEPS  # the next batches may be in the shard that is open


GENERATE_CASES = [("shards are rewritten in place", "direct"), ("shards are truncated", "hdf5")]
GENERATE_CASES += [("shards are removed", "direct"), ("shards are replaced", "hdf5")]


@pytest.mark.reliability("Faults", "generate notices data that are rewritten under it, and continues")
@pytest.mark.parametrize(
    ("case", "layout"),
    [pytest.param(*each, marks=[] if each == GENERATE_CASES[0] else pytest.mark.drill) for each in GENERATE_CASES],
)
def test_generate_notices_files_that_are_written_in_place(
    signllava: Command,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    case: str,
) -> None:
    change = HARMLESS.get(case) or HARMFUL[case][0]
    shutil.copytree(data, tmp_path / "backup")
    options = ["--set", "generate.split=train", "--set", "generate.max_new_tokens=4", "--set", "generate.num_beams=1"]
    options += ["--set", "generate.batch_size=64", "--context-source", "none"]
    command = ["generate", "--checkpoint", run, *options, "--set", f"data.root={data}"]
    ended = signllava(*command, "--out", tmp_path / "expected")
    assert ended.code == 0, ended.err
    append = PredictionsFolder.append
    calls: list[int] = []

    def append_and_change(self: PredictionsFolder, rows: Sequence[Prediction]) -> None:
        append(self, rows)
        calls.append(len(rows))
        if sum(map(bool, calls)) == 1 and rows:
            change(data)

    with monkeypatch.context() as patched:
        patched.setattr(PredictionsFolder, "append", append_and_change)
        ended = signllava(*command, "--out", tmp_path / "out")
    if case in HARMFUL:
        assert_one_line_error(ended, HARMFUL[case][1])
        parts = list((tmp_path / "out" / "parts").glob("*.jsonl"))
        assert sum(len(part.read_text().splitlines()) for part in parts) == sum(calls)
        ended = signllava(*command, "--out", tmp_path / "out")
        is_valid = case == "shards are rewritten in place"
        assert_one_line_error(ended, "holds predictions made with data" if is_valid else HARMFUL[case][2])
        shutil.copytree(tmp_path / "backup", data, dirs_exist_ok=True)
        ended = signllava(*command, "--out", tmp_path / "out")
        assert "done before" in ended.out
    assert ended.code == 0, ended.err
    expected, made = (
        [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        for name in ("expected", "out")
    )
    assert [row["hypothesis"] for row in made] == [row["hypothesis"] for row in expected]
    record_property("changed files", len(SHARDS))
