"""What `generate` asks, what it shows, and what it holds back."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, sets

from signllava_cli.generation.feature_controls import FrameSource
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Generate, Recipe

Command = Callable[..., Ended]
QUICK = ["--split", "dev", "--max-new-tokens", 4, "--beams", 1, "--context", 1, "--prelude", 0]


@pytest.fixture
def generate(signllava: Command, run: Path, tmp_path: Path) -> Callable[..., list[Prediction]]:
    """The rows that `generate` writes with these options."""

    def command(*options: object) -> list[Prediction]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        ended = signllava("generate", "-c", run, *QUICK, *options, "--out", out)
        assert ended.code == 0, ended.err
        return read_predictions(out / "predictions.jsonl")

    return command


def unscored(rows: list[Prediction]) -> list[Prediction]:
    """Without the scores, whose last digits depend on what was decoded together."""
    return [replace(row, score=None) for row in rows]


@pytest.mark.parametrize("task", ["one_word_present", "multi_word_present", "is_reversed"])
def test_yes_no_questions_are_drawn_by_the_seed_and_their_answers_are_the_references(
    generate: Callable[..., list[Prediction]], corpus: Path, task: str
) -> None:
    keywords = {
        word.casefold()
        for clips in json.loads((corpus / "annotation.dev.json").read_text()).values()
        for name in clips["clip_order"]
        for word in clips[name]["keywords"]
    }
    rows = generate("--task", task, "--context-source", "gold", "--seed", 3)
    assert {row.task for row in rows} == {task}
    asked = [row for row in rows if row.missing is None]
    assert len(asked) > 30
    assert all(row.missing == "a word to ask about" for row in rows if row not in asked)
    for row in asked:
        assert row.question
        answers = row.reference.split(", ")
        assert set(answers) <= {"yes", "no"}
        if task == "one_word_present":
            assert row.question.split('"')[1] in keywords
        if task == "multi_word_present":
            assert len(answers) == len(row.question.split(": ")[1].split("?")[0].split(", "))
    assert {"yes", "no"} <= {answer for row in asked for answer in row.reference.split(", ")}
    again = generate("--task", task, "--context-source", "gold", "--seed", 3, "--batch-size", 3)
    assert unscored(again) == unscored(rows)
    other = generate("--task", task, "--context-source", "gold", "--seed", 4)
    assert [row.reference for row in other] != [row.reference for row in rows]


def test_a_question_of_ones_own_has_no_reference(generate: Callable[..., list[Prediction]]) -> None:
    rows = generate("--task-prompt", "Who is signing?", "--context-source", "none")
    assert {(row.task, row.question, row.reference) for row in rows} == {("question", "Who is signing?", "")}
    assert any(row.hypothesis for row in rows)


def test_answers_are_no_context(signllava: Command, run: Path) -> None:
    ended = signllava("generate", "-c", run, *QUICK, "--task", "is_reversed", "--context-source", "predicted")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "answers are no context" in ended.err


def test_controls_change_what_is_shown_and_stand_in_the_meta_file(
    generate: Callable[..., list[Prediction]], signllava: Command, run: Path, tmp_path: Path
) -> None:
    own = generate("--context-source", "none")
    for options in (["--features", "shuffled"], ["--features", "zero"], ["--ablate-stream", "mae"]):
        rows = generate("--context-source", "none", *options)
        assert [row.reference for row in rows] == [row.reference for row in own]
        assert [row.hypothesis for row in rows] != [row.hypothesis for row in own]
    metas = [json.loads(file.read_text())["decoding"] for file in tmp_path.glob("*/predictions.meta.json")]
    assert {(meta["features"], *meta["ablate"]) for meta in metas} == {
        ("own",),
        ("shuffled",),
        ("zero",),
        ("own", "mae"),
    }
    ended = signllava("generate", "-c", run, *QUICK, "--ablate-stream", "dino")
    assert ended.code == 2
    assert "generate.ablate: dino is none of the streams" in ended.err


def test_shuffled_features_are_each_clips_once_and_nobodys_own(recipe: Recipe) -> None:
    split = open_split(recipe.data, recipe.streams, "dev")
    frame_source = FrameSource(split, Generate(features="shuffled", seed=1))
    assert sorted(frame_source.source_rows) == list(range(len(split.index)))
    assert (frame_source.source_rows != np.arange(len(split.index))).all()
    clip = split.clips[3]
    (frames,) = frame_source.read_all([clip])
    other = split.read(split.annotated[int(frame_source.source_rows[clip.row])])
    assert all((frames[name] == other[name]).all() for name in other)


def test_abstention_holds_back_what_scores_low(generate: Callable[..., list[Prediction]]) -> None:
    every = generate("--context-source", "predicted")
    scores = sorted(row.score for row in every if row.score is not None)
    rows = generate("--context-source", "none", "--abstain", scores[len(scores) // 2])
    held_back = [row for row in rows if row.abstained is not None]
    assert 0 < len(held_back) < len(rows)
    for row in rows:
        assert row.score is not None
        assert (row.score < scores[len(scores) // 2]) == (row.abstained is not None)
        assert not (row.abstained and row.hypothesis)


def test_jobs_of_an_array_share_the_work_and_the_last_joins_it(signllava: Command, run: Path, tmp_path: Path) -> None:
    options = ["generate", "-c", run, *QUICK, "--context-source", "predicted"]
    assert signllava(*options, "--out", tmp_path / "one").code == 0
    for job in (2, 3, 1):
        assert not (tmp_path / "many" / "predictions.jsonl").exists()
        ended = signllava(*options, "--out", tmp_path / "many", "--shard", f"{job}/3")
        assert ended.code == 0, ended.err
    one, many = (read_predictions(tmp_path / name / "predictions.jsonl") for name in ("one", "many"))
    assert unscored(many) == unscored(one)
    ended = signllava(*options, "--out", tmp_path / "many", "--shard", "1/3", "--overwrite")
    assert ended.code == 2
    for wrong in ("0/3", "4/3", "x"):
        ended = signllava(*options, "--out", tmp_path / "wrong", "--shard", wrong)
        assert ended.code == 2
        assert "expected I/N" in ended.err


def test_a_clip_without_features_leaves_nothing_or_its_reference(
    generate: Callable[..., list[Prediction]], signllava: Command, corpus: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    with h5py.File(data / "mae" / "mae.dev.0.h5", "a") as file:
        del file["dev00/dev00-01"]
    here = sets([f"data.root={data}", "data.missing=skip"])
    for treatment in ("skip", "gold"):
        rows = {
            row.id: row for row in generate("--missing-context", treatment, "--context-source", "predicted", *here)
        }
        gold = rows["dev00/dev00-01"].reference
        assert rows["dev00/dev00-02"].context == ([gold] if treatment == "gold" else [])
        assert rows["dev00/dev00-03"].context == [rows["dev00/dev00-02"].hypothesis]
        made = next(file for file in tmp_path.glob("out*") if file.is_dir())
        prepared = ["--context-source", f"prepared:{made}", "--missing-context", treatment]
        again = {row.id: row for row in generate(*prepared, *here)}
        assert again["dev00/dev00-02"].context == rows["dev00/dev00-02"].context


@pytest.mark.parametrize("with_hypotheses", [True, False])
def test_prepared_context_of_the_research_systems_json(
    generate: Callable[..., list[Prediction]], corpus: Path, tmp_path: Path, with_hypotheses: bool
) -> None:
    content = json.loads((corpus / "annotation.dev.json").read_text())
    if with_hypotheses:
        for clips in content.values():
            for name in clips["clip_order"]:
                clips[name] |= {"reference": clips[name]["translation"], "hypothesis": f"Said {name}."}
    file = tmp_path / "generation.json"
    file.write_text(json.dumps(content))
    rows = generate("--context-source", f"prepared:{file}")
    for recording, clips in content.items():
        of_recording = [row for row in rows if row.recording == recording]
        for row, before in zip(of_recording[1:], clips["clip_order"], strict=False):
            assert row.context == [f"Said {before}." if with_hypotheses else clips[before]["translation"]]
