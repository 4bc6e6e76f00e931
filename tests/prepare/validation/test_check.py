"""`signllava prepare check` reports every corruption of a dataset, and continues after an error."""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import SHORTENINGS, Ended, sets
from corruption_cases import CORRUPTIONS, Corruption, one_per_finding
from corruptions import change_array, change_clip, change_shard, copy_part, write_file

from signllava_cli.data.training_set import ORDER
from signllava_cli.prepare.validation.checks import CHECKS
from signllava_cli.prepare.validation.shard_reader import ShardFacts, read_shard
from signllava_cli.processes import BeforeFile

Command = Callable[..., Ended]
ONE_PER_FINDING = one_per_finding(CORRUPTIONS)
REFUSED = one_per_finding([corruption for corruption in CORRUPTIONS if corruption.exit_code])
TRAINABLE = [corruption for corruption in CORRUPTIONS if not corruption.exit_code]
QUICK_TRAINABLE = ("recording-empty", "features-dtype", "too-long", "index-stale")  # the others are drills


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus, to be corrupted."""
    return Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))


@pytest.fixture
def part(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the files that the recipe reads, to be corrupted."""
    return copy_part(corpus, tmp_path / "part")


def check(signllava: Command, data: Path, *options: str) -> tuple[Ended, dict[str, Any]]:
    report = data.parent / "report.json"
    result = signllava("prepare", "check", data, "--report", report, *options)
    assert "Traceback" not in result.err
    return result, json.loads(report.read_text())


def find_seed(index: int, num_clips: int) -> int:
    """A seed with which the clip at `index` is among the first two clips of a training."""
    orders = ((seed, np.random.default_rng([seed, ORDER, 0]).permutation(num_clips)) for seed in itertools.count())
    return next(seed for seed, order in orders if index in order[:2])


def severities(report: dict[str, Any]) -> set[str]:
    return {finding["severity"] for finding in report["findings"]}


@pytest.mark.parametrize("corruption", ONE_PER_FINDING)
def test_a_corruption_is_reported_with_its_name(signllava: Command, part: Path, corruption: Corruption) -> None:
    corruption.corrupt(part)
    result, report = check(signllava, part, "--recipe", "toy/tiny_pretrain")
    findings = [finding for finding in report["findings"] if finding["name"] == corruption.finding]
    assert any(name.endswith(corruption.affected) for finding in findings for name in finding["names"]), report[
        "findings"
    ]
    assert corruption.finding in result.out
    assert result.code == (2 if "error" in severities(report) else 0)
    assert all(finding["fix"] and finding["count"] == len(finding["names"]) for finding in report["findings"])


@pytest.mark.parametrize("corruption", REFUSED)
def test_training_on_corrupt_data_ends_with_a_one_line_error(
    signllava: Command, settings: list[str], part: Path, corruption: Corruption
) -> None:
    result = train_on(signllava, settings, part, corruption)
    assert result.code == 2, result.err
    assert result.err.startswith("error: ")
    assert len(result.err.strip().splitlines()) == 1, result.err


@pytest.mark.parametrize(
    "corruption",
    [
        pytest.param(
            corruption,
            id=f"{corruption.finding}-{index}",
            marks=[] if corruption.finding in QUICK_TRAINABLE else [pytest.mark.drill],
        )
        for index, corruption in enumerate(TRAINABLE)
    ],
)
def test_training_on_data_with_lesser_errors_trains(
    signllava: Command, settings: list[str], part: Path, corruption: Corruption
) -> None:
    result = train_on(signllava, settings, part, corruption)
    assert result.code == 0, result.err


def train_on(signllava: Command, settings: list[str], part: Path, corruption: Corruption) -> Ended:
    """A step of training on the corrupted part of the corpus."""
    corruption.corrupt(part)
    overrides = [
        *settings,
        f"data.root={part}",
        "train.max_steps=1",
        "train.batch_size=2",
        "train.micro_batch_size=2",
    ]
    overrides.append(f"run.seed={find_seed(1, num_clips=401)}")
    result = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(overrides))
    assert "Traceback" not in result.out + result.err
    return result


def test_every_check_has_a_corruption() -> None:
    tested_below = {"data-path", "streams-none", "lengths-joined"}
    assert {corruption.finding for corruption in CORRUPTIONS} | tested_below == set(CHECKS)


def test_the_toy_corpus_passes(signllava: Command, data: Path) -> None:
    """It has so few signs that some sentences of train repeat the one before or are in their own context."""
    result, report = check(signllava, data)
    assert result.code == 0
    assert {(finding["name"], finding["split"]) for finding in report["findings"]} == {
        ("context-leak", "train"),
        ("text-repeated", "train"),
    }
    assert set(report["streams"]) == {"sign2vec", "mae", "pose"}
    assert report["streams"]["mae"]["width"] == 64
    assert re.search(r"0 errors, 1 warning, 1 note in [\d.]+ s\n$", result.out)
    assert not list(data.glob("index*")), "a check leaves nothing behind"


def test_all_errors_are_reported_at_once(signllava: Command, data: Path) -> None:
    write_file("annotation.dev.json", "")(data)
    write_file("mae/mae.train.1.h5", "")(data)
    change_array(lambda frames: frames[:0])(data)
    change_clip({"translation": "nan"}, number=2)(data)
    (data / "sign2vec/metadata_sign2vec.test.json").unlink()
    result, report = check(signllava, data)
    assert result.code == 2
    assert {
        ("annotation-unreadable", "dev", None),
        ("shard-unreadable", "train", "mae"),
        ("features-empty", "train", "mae"),
        ("text-nan", "train", None),
        ("metadata-missing", "test", "sign2vec"),
    } <= {(finding["name"], finding["split"], finding["stream"]) for finding in report["findings"]}
    assert not any(finding["name"] == "features-missing" for finding in report["findings"])


def test_splits_and_recipe_select_what_is_checked(signllava: Command, data: Path) -> None:
    change_array(lambda frames: frames[:, :5])(data)
    shutil.rmtree(data / "pose")
    _, report = check(signllava, data, "--split", "dev")
    assert report["findings"] == []
    assert list(report["splits"]) == ["dev"]
    _, report = check(signllava, data, "-r", "toy/tiny_pretrain", "--set", "streams.mae.width=5", "--split", "train")
    (width_finding,) = (finding for finding in report["findings"] if finding["name"] == "features-width")
    assert width_finding["count"] == 400
    assert "instead of 5" in width_finding["what"]
    assert width_finding["fixable"]
    result, report = check(signllava, data, "--split", "valid", "--split", "dev")
    assert result.code == 2
    assert [finding["name"] for finding in report["findings"]] == ["annotation-missing"]


def test_a_wrong_width_of_the_recipe_is_reported_with_that_of_the_files(signllava: Command, data: Path) -> None:
    """Otherwise --fix would remove every clip from the annotation."""
    recipe = ["-r", "toy/tiny_pretrain", "--set", "streams.mae.width=384"]
    result, report = check(signllava, data, *recipe)
    assert result.code == 2
    (width_finding,) = (finding for finding in report["findings"] if finding["severity"] == "error")
    assert (width_finding["name"], width_finding["stream"], width_finding["fixable"]) == (
        "stream-width",
        "mae",
        False,
    )
    assert "(64, not 384)" in width_finding["what"]
    override = width_finding["fix"].partition("--set ")[2]
    assert override == "streams.mae.width=64"
    assert "--fix" not in result.out
    assert check(signllava, data, *recipe, "--set", override)[0].code == 0


@pytest.mark.parametrize(
    "text",
    [
        "[music]",
        "(applause)",
        "♪ la la ♪",
        "♪",
        "[Music] [Applause]",
        ">> [Laughs]",
        "【音乐】",
        "（掌声）",
        "［Music］",
        "(loud music playing)",
    ],
)
def test_sound_captions_are_reported(signllava: Command, part: Path, text: str) -> None:
    change_clip({"translation": text, "keywords": []})(part)
    _, report = check(signllava, part, "--fast")
    assert ["train00/train00-01"] in [
        finding["names"] for finding in report["findings"] if finding["name"] == "text-is-sound-caption"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[Music] Hello.",
        "Bake it (slowly).",
        "(And then she moved to New York.)",
        "Sing ♪ with me",
        "[]",
        "(a) and (b)",
        "[He says that we bake.]",
        "(2010)",
    ],
)
def test_sentences_with_brackets_are_not_sound_captions(signllava: Command, part: Path, text: str) -> None:
    change_clip({"translation": text, "keywords": []})(part)
    _, report = check(signllava, part, "--fast")
    assert "text-is-sound-caption" not in {finding["name"] for finding in report["findings"]}


def test_clips_with_the_same_words_may_share_paraphrases(signllava: Command, part: Path) -> None:
    for number, translation in ((1, "It is so."), (4, "it is SO")):
        change_clip({"translation": translation, "paraphrases": ["So it is.", "Indeed."], "keywords": []}, number)(
            part
        )
    _, report = check(signllava, part, "--fast")
    assert "paraphrases-shared" not in {finding["name"] for finding in report["findings"]}


def test_too_long_clips_are_reported_with_the_source_of_the_limit(signllava: Command, part: Path) -> None:

    def problems(*options: str) -> dict[str, str]:
        _, report = check(signllava, part, "--fast", *options)
        return {finding["name"]: finding["what"] for finding in report["findings"]}

    recipe = ("--recipe", "toy/tiny_pretrain")
    change_clip({"translation": "bread is good " * 800})(part)
    what_of = problems()
    assert "tokens of text" in what_of["text-too-long"]
    assert "a recipe has 2048 by default" in what_of["text-too-long"]
    assert "too-long" not in what_of
    what_of = problems(*recipe)
    assert "the recipe has 256" in what_of["text-too-long"]
    assert "the recipe has 256" in what_of["context-too-long"], "for the clips after it"
    assert "too-long" not in what_of


def test_fast_checks_shapes_without_reading_frames(signllava: Command, data: Path) -> None:
    change_array(lambda frames: frames * float("nan"))(data)
    result, report = check(signllava, data, "--fast")
    assert result.code == 0
    change_array(lambda frames: frames[:, :5])(data)
    result, report = check(signllava, data, "--fast")
    assert [finding["name"] for finding in report["findings"]][:1] == ["features-width"]


@pytest.mark.drill
def test_the_context_is_that_of_the_options_or_the_recipe(signllava: Command, data: Path) -> None:
    def count_leaks(*options: str) -> int:
        _, report = check(signllava, data, "--split", "train", *options)
        return sum(finding["count"] for finding in report["findings"] if finding["name"] == "context-leak")

    assert count_leaks("--window", "0", "--prelude", "0") == 0
    assert count_leaks("--window", "1", "--prelude", "0") == 2
    assert count_leaks() == count_leaks("-r", "toy/tiny_pretrain") == 6


@pytest.mark.parametrize("folder", ["metadata_mine", "set.json"])
def test_a_path_that_breaks_sign_llava_is_a_note(signllava: Command, data: Path, tmp_path: Path, folder: str) -> None:
    data.rename(tmp_path / folder)
    result, report = check(signllava, tmp_path / folder, "--split", "dev")
    assert result.code == 0
    assert [finding["name"] for finding in report["findings"]] == ["data-path"]


def test_an_empty_folder_and_a_missing_one(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result, report = check(signllava, tmp_path / "empty")
    assert result.code == 2
    assert [finding["name"] for finding in report["findings"]] == ["annotation-missing", "streams-none"]
    result = signllava("prepare", "check", tmp_path / "missing")
    assert result.code == 2
    assert result.err.startswith("error: No data folder at")
    assert len(result.err.splitlines()) == 1


def test_on_a_terminal_findings_fit_into_100_columns(data: Path) -> None:
    change_clip({"translation": "nan"})(data)
    controller, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "signllava_cli", "prepare", "check", str(data), "--fast"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        output = b""
        with contextlib.suppress(OSError):  # on Linux, when the other end is closed
            while chunk := os.read(controller, 65536):
                output += chunk
    os.close(controller)
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output.decode()).splitlines()
    table = [line for line in lines if line.startswith(("│", "┃", "├"))]
    assert any("text-nan" in line for line in table)
    assert any("train00/train00-01" in line for line in table)
    assert {len(line) for line in table} <= set(range(101))


def read_or_exit(before_file: BeforeFile, file: Path, fast: bool) -> ShardFacts:
    return os._exit(1) if file.name == "mae.train.0.h5" else read_shard(before_file, file, fast)


@pytest.mark.drill
def test_a_shard_that_crashes_its_reader_is_named(
    signllava: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HDF5 library is written in C: a hostile file may crash the process."""
    monkeypatch.setattr("signllava_cli.prepare.validation.shard_reader.read_shard", read_or_exit)
    result, report = check(signllava, data)
    assert result.code == 2
    assert [finding["names"] for finding in report["findings"] if finding["name"] == "shard-unreadable"] == [
        ["mae.train.0.h5"]
    ]
    assert report["streams"]["sign2vec"]["arrays"] == report["streams"]["pose"]["arrays"] == 502


@pytest.mark.parametrize(
    "put",
    [
        lambda handle: h5py.h5g.create(handle["train00"].id, b"no UTF-8: \xff"),
        lambda handle: handle.create_dataset("train00/nothing", data=h5py.Empty("f2")),
        lambda handle: handle.__setitem__("loop", h5py.SoftLink("/loop")),
    ],
)
def test_the_other_shards_are_read_after_a_corrupt_one(
    signllava: Command, data: Path, put: Callable[[h5py.File], object]
) -> None:
    change_shard(put)(data)
    (data / "mae/mae.train.1.h5").write_bytes(b"")
    _, report = check(signllava, data)
    assert any("mae.train.1.h5" in finding["names"] for finding in report["findings"])
    assert report["streams"]["pose"]["arrays"] == 502


def test_a_file_that_two_splits_share_has_no_extra_arrays(signllava: Command, data: Path) -> None:
    """`streams.mae.shards` may name one file for all splits."""
    with h5py.File(data / "mae/all.h5", "w") as shared:
        for split in ("train", "dev"):
            for number in (0, 1):
                with h5py.File(data / f"mae/mae.{split}.{number}.h5") as part:
                    for recording in part:
                        part.copy(recording, shared)
    splits = ["--split", "train", "--split", "dev"]
    _, report = check(signllava, data, "-r", "toy/tiny_pretrain", "--set", "streams.mae.shards=all.h5", *splits)
    names = {finding["name"] for finding in report["findings"]}
    assert "shard-stray" in names  # the shards with the usual names still exist
    assert not names & {"features-extra", "features-missing"}


def test_streams_that_cannot_be_joined_are_reported(signllava: Command, halved_corpus: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(halved_corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))
    recipe = ["-r", "toy/tiny_pretrain", *sets(SHORTENINGS["join"])]
    names = {finding["name"] for finding in check(signllava, data, *recipe)[1]["findings"]}
    assert "lengths-joined" not in names, "one frame less is cut"
    with h5py.File(data / "left" / "left.train.0.h5", "r+") as shard:
        frames = shard["train00"]["train00-03"][:]
        del shard["train00"]["train00-03"]
        shard["train00"]["train00-03"] = np.concatenate([frames] * 2)
    result, report = check(signllava, data, *recipe)
    [finding] = [finding for finding in report["findings"] if finding["name"] == "lengths-joined"]
    assert result.code == 2
    assert finding["names"] == ["train00/train00-03"]
    assert f"left {2 * len(frames)}, right {len(frames)}" in json.dumps(finding)


@pytest.mark.parametrize("shortening", [[], ["streams.mae.stack=3", "streams.sign2vec.conv.stride=2"]])
def test_too_long_agrees_with_the_counts_of_describe(
    corpus: Path, tiny_llm: Path, tmp_path: Path, signllava: Command, shortening: list[str]
) -> None:
    """With the recipe's tokenizer tokens are counted, not estimated: as many clips as training would truncate."""
    max_seq_len = 64 if shortening else 72
    settings = sets([f"llm.path={tiny_llm}", f"data.max_seq_len={max_seq_len}", "data.min_frames=1", *shortening])
    report, statistics = tmp_path / "check.json", tmp_path / "describe.json"
    signllava("prepare", "check", corpus, "--split", "dev", "-r", "toy/tiny_pretrain", *settings, "--report", report)
    signllava(
        "prepare", "describe", corpus, "--split", "dev", "-r", "toy/tiny_pretrain", *settings, "--report", statistics
    )
    counts = {finding["name"]: finding["count"] for finding in json.loads(report.read_text())["findings"]}
    sequences = json.loads(statistics.read_text())["splits"]["dev"]["with_recipe"]["sequences"]
    assert 0 < counts["too-long"] < sequences["clips"]
    context_truncated = counts.get("context-too-long", 0)
    assert context_truncated == sequences["context_truncated"]
    assert counts["too-long"] + context_truncated == sequences["frames_truncated"], "frames are truncated first"
