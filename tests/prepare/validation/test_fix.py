"""`--fix` writes a fixed copy, says what it did, and a check of that copy has none of the fixed findings left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Ended, sets
from corruptions import (
    CORRUPTIONS,
    Corruption,
    annotation,
    array,
    clip,
    metadata,
    order,
    part_of,
    shard,
    times,
    twice,
)

from signllava_cli.prepare.validation.checks import CHECKS

Command = Callable[..., Ended]
TRAIN = "annotation.train.json"
FIXABLE = [each for each in CORRUPTIONS if CHECKS[each.finding].fixable]


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    return part_of(corpus, tmp_path / "data")


def fix(signllava: Command, data: Path, *more: str) -> Ended:
    return signllava("prepare", "check", data, "-r", "toy/tiny_pretrain", "--fix", *more)


def fixed(data: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((data / f"annotation.{split}.fixed.json").read_text())


def found(signllava: Command, data: Path) -> set[str]:
    report = data.parent / "report.json"
    signllava("prepare", "check", data, "-r", "toy/tiny_pretrain", "--report", report)
    return {finding["name"] for finding in json.loads(report.read_text())["findings"]}


@pytest.mark.parametrize("corruption", FIXABLE, ids=[f"{each.finding}-{at}" for at, each in enumerate(FIXABLE)])
def test_a_fixed_file_has_the_finding_no_more(signllava: Command, data: Path, corruption: Corruption) -> None:
    corruption.corrupt(data)
    before = (data / TRAIN).read_bytes()
    ended = fix(signllava, data)
    assert f"{corruption.finding} " in ended.out.partition("annotation.train.fixed.json: fixed ")[2]
    assert (data / TRAIN).read_bytes() == before
    assert len(fixed(data)) >= 31
    (data / "annotation.train.fixed.json").replace(data / TRAIN)
    assert corruption.finding not in found(signllava, data)


def test_all_at_once_round_trip_and_training_goes_on(signllava: Command, data: Path, settings: list[str]) -> None:
    for corrupt in (
        clip({"translation": "nan"}, number=3),
        clip({"translation": ""}, number=4),
        clip({"keywords": 3}, number=5),
        clip({"keywords": ["SISTER", "zebra"], "translation": "My sister.", "paraphrases": ["<none>"]}, number=6),
        array(np.zeros_like),
        metadata({"train01": 1}),
        shard(lambda one: one.__delitem__("train01"), number=1),
        order(lambda names: names.extend(["train00-02", "nobody"])),
        order(lambda names: names.remove("train00-07")),
        annotation("train", lambda content: content.update(nothing={"clip_order": []}, none=None)),
    ):
        corrupt(data)
    errors = [word for word in found(signllava, data) if CHECKS[word].fixable]
    assert len(errors) == 13
    fix(signllava, data)
    (data / "annotation.train.fixed.json").replace(data / TRAIN)
    assert not [word for word in found(signllava, data) if CHECKS[word].fixable]
    quick = [*settings, f"data.root={data}", "train.max_steps=1"]
    assert signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(quick)).code == 0


def test_order_is_mended_by_time_and_other_keys_stay(signllava: Command, data: Path) -> None:
    times((0, 2), (8, 9), (3, 5))(data)  # the first three clips
    order(lambda names: names.remove("train00-02"))(data)
    clip({"speaker": "\ud800", "gloss": ["A"], "keywords": None})(data)
    annotation("train", lambda content: content["train00"].update({"train00-09": {"translation": "Bare."}}))(data)
    fix(signllava, data)
    entry = fixed(data)["train00"]
    assert entry["clip_order"][:3] == ["train00-00", "train00-02", "train00-01"]
    assert sorted(entry["clip_order"]) == sorted(set(entry) - {"clip_order"})
    assert entry["train00-01"]["speaker"] == "\ud800"
    assert entry["train00-01"]["gloss"] == ["A"]
    assert entry["train00-01"]["keywords"] is None
    assert entry["train00-09"] == {"translation": "Bare."}


def test_what_was_sound_is_not_touched(signllava: Command, data: Path) -> None:
    before = json.loads((data / TRAIN).read_text())
    clip({"translation": "nan"})(data)
    fix(signllava, data)
    del before["train00"]["train00-01"]
    before["train00"]["clip_order"].remove("train00-01")
    assert fixed(data) == before
    assert not (data / "annotation.dev.fixed.json").exists()


def test_a_fixed_file_is_no_split(signllava: Command, data: Path) -> None:
    clip({"translation": "nan"})(data)
    fix(signllava, data)
    ended = signllava("prepare", "check", data)
    assert "train.fixed" not in ended.out


def test_clips_of_a_missing_shard_stay(signllava: Command, data: Path) -> None:
    """Half the corpus does not go because a file was not copied."""
    (data / "mae/mae.train.0.h5").unlink()
    ended = fix(signllava, data)
    assert ended.code == 2
    assert "annotation.train.json: nothing that --fix can fix" in ended.out
    assert not (data / "annotation.train.fixed.json").exists()


def test_nothing_is_written_where_a_person_must_decide(signllava: Command, data: Path) -> None:
    twice(data)
    clip_order_too = (data / TRAIN).read_text().replace('"sister"', '"zebra"')
    (data / TRAIN).write_text(clip_order_too)
    assert "gives a key twice: fix that by hand first" in fix(signllava, data).out
    assert not (data / "annotation.train.fixed.json").exists()


def test_a_file_without_any_usable_clip_is_not_written(signllava: Command, data: Path) -> None:
    for number in (0, 1):
        with h5py.File(data / f"mae/mae.dev.{number}.h5", "a") as handle:
            for recording in list(handle):
                del handle[recording]
    assert "no clip would be left" in fix(signllava, data).out
    assert not (data / "annotation.dev.fixed.json").exists()
