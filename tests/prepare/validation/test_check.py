"""`signllava prepare check` finds each way of corruption a dataset, names it, and never stops at one."""

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
from conftest import Ended, sets
from corruptions import CORRUPTIONS, Corruption, annotation, array, clip, part_of, shard, text

from signllava_cli.data.training_set import ORDER
from signllava_cli.prepare.validation.checks import CHECKS
from signllava_cli.prepare.validation.shard_reader import ShardFacts, read_shard

Command = Callable[..., Ended]
PLACES = [f"{each.finding}-{index}" for index, each in enumerate(CORRUPTIONS)]
FINDINGS = [each.finding for each in CORRUPTIONS]
ONE_A_FINDING = [  # the first of each finding; the others are drills
    pytest.param(each, id=PLACES[index], marks=[pytest.mark.drill] if each.finding in FINDINGS[:index] else [])
    for index, each in enumerate(CORRUPTIONS)
]


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus, to be spoiled."""
    return Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))


@pytest.fixture
def part(corpus: Path, tmp_path: Path) -> Path:
    """A copy of what the recipe reads of it, to be spoiled."""
    return part_of(corpus, tmp_path / "part")


def check(signllava: Command, data: Path, *more: str) -> tuple[Ended, dict[str, Any]]:
    report = data.parent / "report.json"
    ended = signllava("prepare", "check", data, "--report", report, *more)
    assert "Traceback" not in ended.err
    return ended, json.loads(report.read_text())


def seed_that_reads(index: int, of: int) -> int:
    """A seed under which the first two clips of a training are that at `place` (train00-01 is at 1) and another."""
    orders = ((seed, np.random.default_rng([seed, ORDER, 0]).permutation(of)) for seed in itertools.count())
    return next(seed for seed, order in orders if index in order[:2])


def severities(report: dict[str, Any]) -> set[str]:
    return {finding["severity"] for finding in report["findings"]}


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=PLACES)
def test_what_is_spoiled_is_found_and_named(signllava: Command, part: Path, corruption: Corruption) -> None:
    corruption.corrupt(part)
    ended, report = check(signllava, part, "--recipe", "toy/tiny_pretrain")
    found = [finding for finding in report["findings"] if finding["name"] == corruption.finding]
    assert any(name.endswith(corruption.named) for finding in found for name in finding["names"]), report["findings"]
    assert corruption.finding in ended.out
    assert ended.code == (2 if "error" in severities(report) else 0)
    assert all(finding["fix"] and finding["count"] == len(finding["names"]) for finding in report["findings"])


@pytest.mark.parametrize("corruption", ONE_A_FINDING)
def test_training_on_what_is_spoiled_ends_plainly(
    signllava: Command, settings: list[str], part: Path, corruption: Corruption
) -> None:
    corruption.corrupt(part)
    quick = [*settings, f"data.root={part}", "train.max_steps=1", "train.batch_size=2", "train.micro_batch_size=2"]
    quick.append(f"run.seed={seed_that_reads(1, of=401)}")
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(quick))
    assert "Traceback" not in ended.out + ended.err
    assert ended.code == corruption.exit_code, ended.err
    if ended.code:
        assert ended.err.startswith("error: ")
        assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_every_finding_has_a_spoiling() -> None:
    elsewhere = {"data-path", "streams-none"}
    assert {each.finding for each in CORRUPTIONS} | elsewhere == set(CHECKS)


def test_the_toy_corpus_is_sound(signllava: Command, data: Path) -> None:
    """Its few signs make a few sentences of train come twice in a row or in a context; nothing else is found."""
    ended, report = check(signllava, data)
    assert ended.code == 0
    assert {(finding["name"], finding["split"]) for finding in report["findings"]} == {
        ("context-leak", "train"),
        ("text-repeated", "train"),
    }
    assert set(report["streams"]) == {"sign2vec", "mae", "pose"}
    assert report["streams"]["mae"]["width"] == 64
    assert re.search(r"0 errors, 1 warning, 1 note in [\d.]+ s\n$", ended.out)
    assert not list(data.glob("index*")), "a check leaves nothing behind"


def test_all_faults_are_found_at_once(signllava: Command, data: Path) -> None:
    text("annotation.dev.json", "")(data)
    text("mae/mae.train.1.h5", "")(data)
    array(lambda frames: frames[:0])(data)
    clip({"translation": "nan"}, number=2)(data)
    (data / "sign2vec/metadata_sign2vec.test.json").unlink()
    ended, report = check(signllava, data)
    assert ended.code == 2
    assert {
        ("annotation-unreadable", "dev", None),
        ("shard-unreadable", "train", "mae"),
        ("features-empty", "train", "mae"),
        ("text-nan", "train", None),
        ("metadata-missing", "test", "sign2vec"),
    } <= {(finding["name"], finding["split"], finding["stream"]) for finding in report["findings"]}
    assert not any(finding["name"] == "features-missing" for finding in report["findings"])


def test_splits_and_recipe_choose_what_is_checked(signllava: Command, data: Path) -> None:
    array(lambda frames: frames[:, :5])(data)
    shutil.rmtree(data / "pose")
    _, report = check(signllava, data, "--split", "dev")
    assert report["findings"] == []
    assert list(report["splits"]) == ["dev"]
    _, report = check(signllava, data, "-r", "toy/tiny_pretrain", "--set", "streams.mae.width=5", "--split", "train")
    (wrong,) = (finding for finding in report["findings"] if finding["name"] == "features-width")
    assert wrong["count"] == 400
    assert "in place of 5" in wrong["what"]
    assert wrong["fixable"]
    ended, report = check(signllava, data, "--split", "valid", "--split", "dev")
    assert ended.code == 2
    assert [finding["name"] for finding in report["findings"]] == ["annotation-missing"]


def test_a_recipe_of_another_width_is_told_the_width_of_the_files(signllava: Command, data: Path) -> None:
    """--fix would take every clip out of the annotation."""
    recipe = ["-r", "toy/tiny_pretrain", "--set", "streams.mae.width=384"]
    ended, report = check(signllava, data, *recipe)
    assert ended.code == 2
    (wrong,) = (finding for finding in report["findings"] if finding["severity"] == "error")
    assert (wrong["name"], wrong["stream"], wrong["fixable"]) == ("stream-width", "mae", False)
    assert "(64, not 384)" in wrong["what"]
    setting = wrong["fix"].partition("--set ")[2]
    assert setting == "streams.mae.width=64"
    assert "--fix" not in ended.out
    assert check(signllava, data, *recipe, "--set", setting)[0].code == 0


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
def test_captions_of_sounds_are_found(signllava: Command, part: Path, text: str) -> None:
    clip({"translation": text, "keywords": []})(part)
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
    ],
)
def test_sentences_with_brackets_are_no_captions_of_sounds(signllava: Command, part: Path, text: str) -> None:
    clip({"translation": text, "keywords": []})(part)
    _, report = check(signllava, part, "--fast")
    assert "text-is-sound-caption" not in {finding["name"] for finding in report["findings"]}


def test_clips_that_say_the_same_may_share_paraphrases(signllava: Command, part: Path) -> None:
    for number, said in ((1, "It is so."), (4, "it is SO")):
        clip({"translation": said, "paraphrases": ["So it is.", "Indeed."], "keywords": []}, number)(part)
    _, report = check(signllava, part, "--fast")
    assert "paraphrases-shared" not in {finding["name"] for finding in report["findings"]}


def test_what_is_too_long_is_said(signllava: Command, part: Path) -> None:
    """... and where the limit comes from."""

    def whats(*more: str) -> dict[str, str]:
        _, report = check(signllava, part, "--fast", *more)
        return {finding["name"]: finding["what"] for finding in report["findings"]}

    recipe = ("--recipe", "toy/tiny_pretrain")
    clip({"translation": "bread is good " * 800})(part)
    found = whats()
    assert "positions of text" in found["text-too-long"]
    assert "a recipe has 2048 by default" in found["text-too-long"]
    assert "too-long" not in found
    found = whats(*recipe)
    assert "the recipe has 256" in found["text-too-long"]
    assert "the recipe has 256" in found["context-too-long"], "of the clips after it"
    assert "too-long" not in found


def test_fast_reads_no_frames_but_knows_shapes(signllava: Command, data: Path) -> None:
    array(lambda frames: frames * float("nan"))(data)
    ended, report = check(signllava, data, "--fast")
    assert ended.code == 0
    array(lambda frames: frames[:, :5])(data)
    ended, report = check(signllava, data, "--fast")
    assert [finding["name"] for finding in report["findings"]][:1] == ["features-width"]


def test_the_context_is_the_recipes_or_the_options(signllava: Command, data: Path) -> None:
    def leaks(*more: str) -> int:
        _, report = check(signllava, data, "--split", "train", *more)
        return sum(finding["count"] for finding in report["findings"] if finding["name"] == "context-leak")

    assert leaks("--window", "0", "--prelude", "0") == 0
    assert leaks("--window", "1", "--prelude", "0") == 2
    assert leaks() == leaks("-r", "toy/tiny_pretrain") == 6


@pytest.mark.parametrize("folder", ["metadata_mine", "set.json"])
def test_a_path_that_breaks_the_research_code_is_noted(
    signllava: Command, data: Path, tmp_path: Path, folder: str
) -> None:
    data.rename(tmp_path / folder)
    ended, report = check(signllava, tmp_path / folder, "--split", "dev")
    assert ended.code == 0
    assert [finding["name"] for finding in report["findings"]] == ["data-path"]


def test_an_empty_folder_and_none(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended, report = check(signllava, tmp_path / "empty")
    assert ended.code == 2
    assert [finding["name"] for finding in report["findings"]] == ["annotation-missing", "streams-none"]
    ended = signllava("prepare", "check", tmp_path / "none")
    assert ended.code == 2
    assert ended.err.startswith("error: No data folder at")
    assert len(ended.err.splitlines()) == 1


def test_on_a_terminal_findings_fit_into_100_columns(data: Path) -> None:
    clip({"translation": "nan"})(data)
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    words = [sys.executable, "-m", "signllava_cli", "prepare", "check", str(data), "--fast"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux says so when the other end has closed
            while more := os.read(ours, 65536):
                seen += more
    os.close(ours)
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen.decode()).splitlines()
    table = [line for line in lines if line.startswith(("│", "┃", "├"))]
    assert any("text-nan" in line for line in table)
    assert any("train00/train00-01" in line for line in table)
    assert {len(line) for line in table} <= set(range(101))


def test_a_report_that_cannot_be_written_is_refused_before_reading(signllava: Command, data: Path) -> None:
    ended = signllava("prepare", "check", data, "--report", "report.pdf")
    assert ended.code == 2
    assert ended.out == ""
    assert "ends in .json or .html" in ended.err


def test_hostile_names_are_text_everywhere(signllava: Command, data: Path) -> None:
    hostile = '<script>alert("1")</script>\x1b[31m[red]\ud800'
    annotation("dev", lambda content: content["dev00"].update({hostile: {"translation": "<b>x</b>"}}))(data)
    page = data.parent / "check.html"
    ended, report = check(signllava, data)
    assert any(hostile in name for finding in report["findings"] for name in finding["names"])
    assert "\x1b" not in ended.out
    assert r"\x1b[31m[red]\ud800" in ended.out
    assert signllava("prepare", "check", data, "--report", page).code == 2
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;alert(&#34;1&#34;)" in page.read_text()


def test_the_page_stands_alone(signllava: Command, data: Path) -> None:
    clip({"translation": "nan"})(data)
    page = data.parent / "check.html"
    assert signllava("prepare", "check", data, "--report", page).code == 2
    content = page.read_text()
    assert not re.search(r"(src|href)=|url\(|@import|<script|https?:", content)
    for words in ("text-nan", "train00/train00-01", "prefers-color-scheme: dark", "width=device-width", "1 error,"):
        assert words in content


def test_the_page_shows_the_sentence_and_the_times_of_a_clip(signllava: Command, data: Path) -> None:
    said = {"translation": "[Music & more]", "start": 3725.04, "end": 3726.5, "keywords": []}
    clip(said)(data)
    for number in range(2, 9):
        clip(said | {"translation": f"[Sound {number}]", "start": None, "end": None}, number)(data)
    page = data.parent / "check.html"
    signllava("prepare", "check", data, "--report", page)
    listed = [
        " ".join(re.sub(r"<[^>]*>", "", item).split()) for item in re.findall(r"<li>.*?</li>", page.read_text(), re.S)
    ]
    assert "train00/train00-01 1:02:05.0-1:02:06.5 [Music &amp; more]" in listed
    assert "train00/train00-08 [Sound 8]" in listed
    assert any(item.startswith("train10/train10-07 ") for item in listed), "of findings with few names, too"


def test_the_json_says_how_it_came_about(signllava: Command, data: Path) -> None:
    _, report = check(signllava, data, "--fast", "--window", "1")
    assert report["versions"]["signllava"]
    assert report["arguments"] == {
        "splits": None,
        "recipe": None,
        "set": None,
        "window": 1,
        "prelude": 2,
        "fps": 25.0,
        "fast": True,
    }
    assert report["counts"] == {"error": 0, "warning": 1, "note": 1}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", report["date"])


def read_or_die(file: Path, fast: bool) -> ShardFacts:
    return os._exit(1) if file.name == "mae.train.0.h5" else read_shard(file, fast)


def test_a_shard_that_kills_its_reader_is_named(
    signllava: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HDF5 library is C: a hostile file may take the process with it."""
    monkeypatch.setattr("signllava_cli.prepare.validation.shard_pool.read_shard", read_or_die)
    ended, report = check(signllava, data)
    assert ended.code == 2
    assert [finding["names"] for finding in report["findings"] if finding["name"] == "shard-unreadable"] == [
        ["mae.train.0.h5"]
    ]
    assert report["streams"]["sign2vec"]["arrays"] == report["streams"]["pose"]["arrays"] == 502


@pytest.mark.parametrize(
    "put",
    [
        lambda one: h5py.h5g.create(one["train00"].id, b"no UTF-8: \xff"),
        lambda one: one.create_dataset("train00/nothing", data=h5py.Empty("f2")),
        lambda one: one.__setitem__("loop", h5py.SoftLink("/loop")),
    ],
)
def test_whatever_a_shard_holds_the_others_are_read(
    signllava: Command, data: Path, put: Callable[[h5py.File], object]
) -> None:
    shard(put)(data)
    (data / "mae/mae.train.1.h5").write_bytes(b"")
    _, report = check(signllava, data)
    assert any("mae.train.1.h5" in finding["names"] for finding in report["findings"])
    assert report["streams"]["pose"]["arrays"] == 502


def test_a_file_that_two_splits_share_has_no_extra_arrays(signllava: Command, data: Path) -> None:
    """`streams.mae.shards` may name one file for all splits."""
    with h5py.File(data / "mae/all.h5", "w") as whole:
        for split in ("train", "dev"):
            for number in (0, 1):
                with h5py.File(data / f"mae/mae.{split}.{number}.h5") as part:
                    for recording in part:
                        part.copy(recording, whole)
    splits = ["--split", "train", "--split", "dev"]
    _, report = check(signllava, data, "-r", "toy/tiny_pretrain", "--set", "streams.mae.shards=all.h5", *splits)
    names = {finding["name"] for finding in report["findings"]}
    assert "shard-stray" in names  # the shards of the layout are still there
    assert not names & {"features-extra", "features-missing"}


def test_too_long_agrees_with_what_describe_counts(
    corpus: Path, tiny_llm: Path, tmp_path: Path, signllava: Command
) -> None:
    """With the recipe's tokenizer positions are counted, not estimated: as many clips as training would cut."""
    sets = ["--set", f"llm.path={tiny_llm}", "--set", "data.max_seq_len=72", "--set", "data.min_frames=1"]
    report, figures = tmp_path / "check.json", tmp_path / "describe.json"
    signllava("prepare", "check", corpus, "--split", "dev", "-r", "toy/tiny_pretrain", *sets, "--report", report)
    signllava("prepare", "describe", corpus, "--split", "dev", "-r", "toy/tiny_pretrain", *sets, "--json", figures)
    found = {each["name"]: each["count"] for each in json.loads(report.read_text())["findings"]}
    sequences = json.loads(figures.read_text())["splits"]["dev"]["under_recipe"]["sequences"]
    assert 0 < found["too-long"] < sequences["clips"]
    shortened = found.get("context-too-long", 0)
    assert shortened == sequences["lose_context"]
    assert found["too-long"] + shortened == sequences["thinned"], "whatever is cut loses frames first"
