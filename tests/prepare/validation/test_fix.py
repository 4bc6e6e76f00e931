"""`--fix` writes a fixed copy, prints what it fixed, and the copy passes these checks."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Ended, sets
from corruption_cases import CORRUPTIONS, Corruption, one_per_finding
from corruptions import (
    change_annotation,
    change_array,
    change_clip,
    change_metadata,
    change_order,
    change_shard,
    copy_part,
    duplicate_key,
    set_times,
)

from signllava_cli.prepare.validation.checks import CHECKS

Command = Callable[..., Ended]
TRAIN = "annotation.train.json"
FIXABLE = [corruption for corruption in CORRUPTIONS if CHECKS[corruption.finding].fixable]


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of part of the toy corpus, to be corrupted."""
    return copy_part(corpus, tmp_path / "data")


def fix(signllava: Command, data: Path, *options: str) -> Ended:
    return signllava("prepare", "check", data, "-r", "toy/tiny_pretrain", "--fix", *options)


def read_fixed(data: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((data / f"annotation.{split}.fixed.json").read_text())


def check_names(signllava: Command, data: Path) -> set[str]:
    report = data.parent / "report.json"
    signllava("prepare", "check", data, "-r", "toy/tiny_pretrain", "--report", report)
    return {finding["name"] for finding in json.loads(report.read_text())["findings"]}


@pytest.mark.parametrize("corruption", one_per_finding(FIXABLE))
def test_a_fixed_file_passes_the_check(signllava: Command, data: Path, corruption: Corruption) -> None:
    corruption.corrupt(data)
    before = (data / TRAIN).read_bytes()
    result = fix(signllava, data)
    assert f"{corruption.finding} " in result.out.partition("annotation.train.fixed.json: fixed ")[2]
    assert (data / TRAIN).read_bytes() == before
    assert len(read_fixed(data)) >= 31
    (data / "annotation.train.fixed.json").replace(data / TRAIN)
    assert corruption.finding not in check_names(signllava, data)


def test_the_printed_command_keeps_each_original(signllava: Command, data: Path) -> None:
    data = data.rename(data.with_name("my data"))
    (data / f"{TRAIN}.before").write_text("of prepare keywords")  # the backup of the first edit of texts
    backups = [data / f"{TRAIN}.unfixed", data / f"{TRAIN}.unfixed-2"]
    for number, backup in enumerate(backups, start=3):
        change_clip({"translation": "nan"}, number=number)(data)
        before = (data / TRAIN).read_bytes()
        printed = fix(signllava, data, "--fast").out
        command = next(line for line in printed.splitlines() if "mv -n" in line).partition(": ")[2]
        subprocess.run(["sh", "-c", command], check=True)
        assert backup.read_bytes() == before
        assert (data / TRAIN).read_bytes() != before
    assert (data / f"{TRAIN}.before").read_text() == "of prepare keywords"


def test_several_errors_are_fixed_at_once_and_training_accepts_the_result(
    signllava: Command, data: Path, settings: list[str]
) -> None:
    for corrupt in (
        change_clip({"translation": "nan"}, number=3),
        change_clip({"translation": ""}, number=4),
        change_clip({"keywords": 3}, number=5),
        change_clip(
            {"keywords": ["SISTER", "zebra"], "translation": "My sister.", "paraphrases": ["<none>"]}, number=6
        ),
        change_array(np.zeros_like),
        change_metadata({"train01": 1}),
        change_shard(lambda handle: handle.__delitem__("train01"), number=1),
        change_order(lambda names: names.extend(["train00-02", "nobody"])),
        change_order(lambda names: names.remove("train00-07")),
        change_annotation("train", lambda content: content.update(nothing={"clip_order": []}, none=None)),
    ):
        corrupt(data)
    fixable = [name for name in check_names(signllava, data) if CHECKS[name].fixable]
    assert len(fixable) == 13
    fix(signllava, data)
    (data / "annotation.train.fixed.json").replace(data / TRAIN)
    assert not [name for name in check_names(signllava, data) if CHECKS[name].fixable]
    overrides = [*settings, f"data.root={data}", "train.max_steps=1"]
    assert signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(overrides)).code == 0


def test_order_is_fixed_by_time_and_unknown_keys_are_kept(signllava: Command, data: Path) -> None:
    set_times((0, 2), (8, 9), (3, 5))(data)  # the first three clips
    change_order(lambda names: names.remove("train00-02"))(data)
    change_clip({"speaker": "\ud800", "gloss": ["A"], "keywords": None})(data)
    change_annotation("train", lambda content: content["train00"].update({"train00-09": {"translation": "Bare."}}))(
        data
    )
    fix(signllava, data)
    entry = read_fixed(data)["train00"]
    assert entry["clip_order"][:3] == ["train00-00", "train00-02", "train00-01"]
    assert sorted(entry["clip_order"]) == sorted(set(entry) - {"clip_order"})
    assert entry["train00-01"]["speaker"] == "\ud800"
    assert entry["train00-01"]["gloss"] == ["A"]
    assert entry["train00-01"]["keywords"] is None
    assert entry["train00-09"] == {"translation": "Bare."}


def test_valid_entries_are_not_changed(signllava: Command, data: Path) -> None:
    before = json.loads((data / TRAIN).read_text())
    change_clip({"translation": "nan"})(data)
    fix(signllava, data)
    del before["train00"]["train00-01"]
    before["train00"]["clip_order"].remove("train00-01")
    assert read_fixed(data) == before
    assert not (data / "annotation.dev.fixed.json").exists()


def test_a_fixed_file_is_not_a_split(signllava: Command, data: Path) -> None:
    change_clip({"translation": "nan"})(data)
    fix(signllava, data)
    result = signllava("prepare", "check", data)
    assert "train.fixed" not in result.out


def test_clips_of_a_missing_shard_are_kept(signllava: Command, data: Path) -> None:
    """A file that was not copied must not cost half of the corpus."""
    (data / "mae/mae.train.0.h5").unlink()
    result = fix(signllava, data)
    assert result.code == 2
    assert "annotation.train.json: nothing that --fix can fix" in result.out
    assert not (data / "annotation.train.fixed.json").exists()


def test_a_file_with_a_duplicate_key_is_not_fixed(signllava: Command, data: Path) -> None:
    duplicate_key(data)
    content = (data / TRAIN).read_text().replace('"sister"', '"zebra"')
    (data / TRAIN).write_text(content)
    assert "has a duplicate key; fix it by hand first" in fix(signllava, data).out
    assert not (data / "annotation.train.fixed.json").exists()


def test_a_file_without_a_valid_clip_is_not_written(signllava: Command, data: Path) -> None:
    for number in (0, 1):
        with h5py.File(data / f"mae/mae.dev.{number}.h5", "a") as handle:
            for recording in list(handle):
                del handle[recording]
    assert "no clip would remain" in fix(signllava, data).out
    assert not (data / "annotation.dev.fixed.json").exists()
