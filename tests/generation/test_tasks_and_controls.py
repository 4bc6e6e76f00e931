"""The instructions of `generate`, the controls of its features, abstention, and shards of the work."""

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
    """Runs `generate` with these options and returns the predictions."""

    def command(*options: object) -> list[Prediction]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        ended = signllava("generate", "-c", run, *QUICK, *options, "--out", out)
        assert ended.code == 0, ended.err
        return read_predictions(out / "predictions.jsonl")

    return command


def without_scores(rows: list[Prediction]) -> list[Prediction]:
    """The last digits of scores depend on which clips were decoded together."""
    return [replace(row, score=None) for row in rows]


@pytest.mark.parametrize("task", ["one_word_present", "multi_word_present", "is_reversed"])
def test_yes_no_questions_are_sampled_by_the_seed_and_their_answers_are_the_references(
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
    decoded = [row for row in rows if row.missing is None]
    assert len(decoded) > 30
    assert all(row.missing == "a word to ask about" for row in rows if row not in decoded)
    for row in decoded:
        assert row.question
        answers = row.reference.split(", ")
        assert set(answers) <= {"yes", "no"}
        if task == "one_word_present":
            assert row.question.split('"')[1] in keywords
        if task == "multi_word_present":
            assert len(answers) == len(row.question.split(": ")[1].split("?")[0].split(", "))
    assert {"yes", "no"} <= {answer for row in decoded for answer in row.reference.split(", ")}
    repeated = generate("--task", task, "--context-source", "gold", "--seed", 3, "--batch-size", 3)
    assert without_scores(repeated) == without_scores(rows)
    other_seed = generate("--task", task, "--context-source", "gold", "--seed", 4)
    assert [row.reference for row in other_seed] != [row.reference for row in rows]


def test_a_free_question_has_no_reference(generate: Callable[..., list[Prediction]]) -> None:
    rows = generate("--task-prompt", "Who is signing?", "--context-source", "none")
    assert {(row.task, row.question, row.reference) for row in rows} == {("question", "Who is signing?", "")}
    assert any(row.hypothesis for row in rows)


def test_answers_are_not_context(signllava: Command, run: Path) -> None:
    ended = signllava("generate", "-c", run, *QUICK, "--task", "is_reversed", "--context-source", "predicted")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "answers to questions are not context" in ended.err


def test_controls_change_the_hypotheses_and_are_in_the_meta_file(
    generate: Callable[..., list[Prediction]], signllava: Command, run: Path, tmp_path: Path
) -> None:
    baseline = generate("--context-source", "none")
    for options in (["--features", "shuffled"], ["--features", "zero"], ["--ablate-stream", "mae"]):
        rows = generate("--context-source", "none", *options)
        assert [row.reference for row in rows] == [row.reference for row in baseline]
        assert [row.hypothesis for row in rows] != [row.hypothesis for row in baseline]
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


def test_shuffled_features_show_every_clip_once_and_never_for_itself(recipe: Recipe) -> None:
    split = open_split(recipe.data, recipe.streams, "dev")
    frame_source = FrameSource(split, Generate(features="shuffled", seed=1))
    assert sorted(frame_source.source_rows) == list(range(len(split.index)))
    assert (frame_source.source_rows != np.arange(len(split.index))).all()
    clip = split.clips[3]
    (frames,) = frame_source.read_all([clip])
    source = split.read(split.annotated[int(frame_source.source_rows[clip.row])])
    assert all((frames[name] == source[name]).all() for name in source)


def test_scores_below_abstain_withhold_the_hypothesis(generate: Callable[..., list[Prediction]]) -> None:
    all_rows = generate("--context-source", "predicted")
    scores = sorted(row.score for row in all_rows if row.score is not None)
    rows = generate("--context-source", "none", "--abstain", scores[len(scores) // 2])
    withheld = [row for row in rows if row.abstained is not None]
    assert 0 < len(withheld) < len(rows)
    for row in rows:
        assert row.score is not None
        assert (row.score < scores[len(scores) // 2]) == (row.abstained is not None)
        assert not (row.abstained and row.hypothesis)


@pytest.mark.drill
def test_jobs_of_an_array_share_the_work_and_the_last_joins_the_parts(
    signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["generate", "-c", run, *QUICK, "--context-source", "predicted"]
    assert signllava(*options, "--out", tmp_path / "single").code == 0
    for job in (2, 3, 1):
        assert not (tmp_path / "many" / "predictions.jsonl").exists()
        ended = signllava(*options, "--out", tmp_path / "many", "--shard", f"{job}/3")
        assert ended.code == 0, ended.err
    single, many = (read_predictions(tmp_path / name / "predictions.jsonl") for name in ("single", "many"))
    assert without_scores(many) == without_scores(single)
    ended = signllava(*options, "--out", tmp_path / "many", "--keep-others", "--overwrite")
    assert (ended.code, "pass one of them" in ended.err) == (2, True)
    ended = signllava(*options, "--out", tmp_path / "many", "--shard", "1/3", "--overwrite")
    assert ended.code == 2
    for shard in ("0/3", "4/3", "x"):
        ended = signllava(*options, "--out", tmp_path / "wrong", "--shard", shard)
        assert ended.code == 2
        assert "expected I/N" in ended.err


def test_a_clip_without_features_adds_nothing_or_its_reference_to_context(
    generate: Callable[..., list[Prediction]], signllava: Command, corpus: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    with h5py.File(data / "mae" / "mae.dev.0.h5", "a") as file:
        del file["dev00/dev00-01"]
    settings = sets([f"data.root={data}", "data.missing=skip"])
    for treatment in ("skip", "gold"):
        rows = {
            row.id: row
            for row in generate("--missing-context", treatment, "--context-source", "predicted", *settings)
        }
        gold = rows["dev00/dev00-01"].reference
        assert rows["dev00/dev00-02"].context == ([gold] if treatment == "gold" else [])
        assert rows["dev00/dev00-03"].context == [rows["dev00/dev00-02"].hypothesis]
        out = next(file for file in tmp_path.glob("out*") if file.is_dir())
        prepared = ["--context-source", f"prepared:{out}", "--missing-context", treatment]
        prepared_rows = {row.id: row for row in generate(*prepared, *settings)}
        assert prepared_rows["dev00/dev00-02"].context == rows["dev00/dev00-02"].context


@pytest.mark.parametrize("with_hypotheses", [True, False])
def test_prepared_context_from_the_json_of_sign_llava(
    generate: Callable[..., list[Prediction]], corpus: Path, tmp_path: Path, with_hypotheses: bool
) -> None:
    content = json.loads((corpus / "annotation.dev.json").read_text())
    if with_hypotheses:
        for clips in content.values():
            for name in clips["clip_order"]:
                clips[name] |= {"reference": clips[name]["translation"], "hypothesis": f"Text of {name}."}
    file = tmp_path / "generation.json"
    file.write_text(json.dumps(content))
    rows = generate("--context-source", f"prepared:{file}")
    for recording, clips in content.items():
        of_recording = [row for row in rows if row.recording == recording]
        for row, before in zip(of_recording[1:], clips["clip_order"], strict=False):
            assert row.context == [f"Text of {before}." if with_hypotheses else clips[before]["translation"]]
