"""Generation against the slow, obvious way: one clip at a time, in order."""

import itertools
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, sets, subprocess_command

from signllava_cli.data.annotations import Clip, read_annotations
from signllava_cli.data.batches import make_batch
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.generation.decoding import decode
from signllava_cli.generation.frontier import Frontier
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions import read_predictions
from signllava_cli.model.assembly import Assembled, assemble_checkpoint
from signllava_cli.model.checkpoint import find_checkpoint, recipe_of
from signllava_cli.recipe import Recipe

Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny_llm: Path) -> Path:
    """A short run: many of its hypotheses are poor, and they differ from clip to clip."""
    from signllava_cli.recipe import read_recipe
    from signllava_cli.training.loop import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = [f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.folder={folder}", "train.max_steps=150"]
    train(read_recipe("toy/tiny_pretrain", settings), "pretrain")
    return folder


def opened(run: Path, *overrides: str) -> tuple[Recipe, Assembled, Split]:
    checkpoint = find_checkpoint(run)
    recipe = recipe_of(checkpoint, ["generate.split=dev", "generate.max_new_tokens=8", *overrides])
    assembled = assemble_checkpoint(checkpoint, recipe, torch.device("cpu"))
    return recipe, assembled, Split(recipe, "dev")


@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_decodes_as_its_clips_alone(run: Path, beams: int) -> None:
    recipe, assembled, split = opened(run, f"generate.beams={beams}")
    builder = ExampleBuilder(recipe, assembled.prompts)
    examples = [
        builder.build(
            clip,
            split.read(clip),
            split.gold_context(clip, 2, 2),
            None,
            room=8,
        )
        for clip in split.clips[:9]
    ]
    assert len({example.positions for example in examples}) > 3
    alone = [decode(assembled, [each], recipe)[0] for each in examples]
    assert len({each.text for each in alone}) > 1
    for size in (3, 9):
        together = [
            hypothesis
            for start in range(0, 9, size)
            for hypothesis in decode(assembled, examples[start : start + size], recipe)
        ]
        assert [each.text for each in together] == [each.text for each in alone]
        assert [each.score for each in together] == pytest.approx([each.score for each in alone], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_score_is_the_mean_log_probability_of_the_hypothesis(run: Path, beams: int) -> None:
    recipe, assembled, split = opened(run, f"generate.beams={beams}", "generate.max_new_tokens=40")
    builder = ExampleBuilder(recipe, assembled.prompts)
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    checked = 0
    for clip in split.clips:
        frames = split.read(clip)
        (hypothesis,) = decode(assembled, [builder.build(clip, frames, [], None)], recipe)
        if not hypothesis.finished:
            continue
        example = builder.build(clip, frames, [], hypothesis.text)
        loss, targets = assembled.model(make_batch([example], widths, assembled.pad_id, "right"))
        assert hypothesis.score == pytest.approx(-loss.item() / targets, abs=1e-4)
        checked += 1
        if checked == 4:
            return
    assert checked, "no hypothesis came to its end"


def slow_predictions(
    run: Path, source: str, window: int, prelude: int, beams: int
) -> dict[str, tuple[str, list[str]]]:
    """One clip at a time in signing order: clip id -> hypothesis and the context it saw, written out by hand."""
    recipe, assembled, split = opened(run, f"generate.beams={beams}")
    builder = ExampleBuilder(recipe, assembled.prompts)
    done: dict[str, tuple[str, list[str]]] = {}
    for _, its in itertools.groupby(split.annotated, key=lambda clip: clip.recording):
        clips, said = list(its), list[str]()
        for p, clip in enumerate(clips):
            before = [each.translation for each in clips[:p]] if source == "gold" else said
            seen = before if p < window + prelude else [*before[:prelude], *before[p - window : p]]
            context = [] if source == "none" else [text for text in seen if text]
            example = builder.build(clip, split.read(clip), context, None, room=8)
            text = decode(assembled, [example], recipe)[0].text
            said.append(text)
            done[clip.id] = (text, context)
    return done


@pytest.mark.parametrize(
    ("source", "window", "prelude", "beams"),
    [
        ("none", 2, 2, 1),
        ("gold", 2, 2, 1),
        ("predicted", 2, 2, 1),
        ("predicted", 1, 0, 3),
        ("predicted", 0, 2, 1),
    ],
)
def test_generate_equals_one_clip_at_a_time(
    signllava: Command, run: Path, tmp_path: Path, source: str, window: int, prelude: int, beams: int
) -> None:
    options = ["--split", "dev", "--max-new-tokens", 8, "--beams", beams, "--batch-size", 5]
    options += ["--context", window, "--prelude", prelude, "--context-source", source]
    ended = signllava("generate", "--checkpoint", run, *options, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    rows = read_predictions(tmp_path / "out" / "predictions.jsonl")
    expected = slow_predictions(run, source, window, prelude, beams)
    assert [row.id for row in rows] == list(expected)
    assert {row.id: (row.hypothesis, row.context) for row in rows} == expected


def test_prepared_context_is_what_the_file_says(signllava: Command, run: Path, tmp_path: Path, corpus: Path) -> None:
    file = tmp_path / "prepared.jsonl"
    clips = [clip for recording in read_annotations(corpus, "dev") for clip in recording.clips]
    rows = [Prediction(c.recording, c.name, c.position, "translation", "", f"Said {c.name}.") for c in clips]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--split", "dev", "--max-new-tokens", 2, "--context", 1, "--prelude", 1]
    ended = signllava(
        "generate", "-c", run, *options, "--context-source", f"prepared:{file}", "--out", tmp_path / "o"
    )
    assert ended.code == 0, ended.err
    for row in read_predictions(tmp_path / "o" / "predictions.jsonl"):
        seen = [] if row.position == 0 else sorted({0, row.position - 1})
        assert row.context == [f"Said {row.recording}-{p:02d}." for p in seen]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows[1:]))
    ended = signllava(
        "generate", "-c", run, *options, "--context-source", f"prepared:{file}", "--out", tmp_path / "p"
    )
    assert ended.code == 2
    assert f"lacks 1 sentences of split dev ({clips[0].id})" in ended.err


def test_in_predicted_mode_batches_are_full_and_order_is_kept() -> None:
    clips = [Clip(f"r{r}", str(p), p, "") for r, length in enumerate((3, 5, 2)) for p in range(length)]
    frontier, batches = Frontier(clips, [1] * 10, in_order=True), []
    while batch := frontier.take(2):
        batches.append([clip.id for clip in batch])
        for clip in batch:
            frontier.done(clip)
    assert batches == [["r1/0", "r0/0"], ["r1/1", "r0/1"], ["r1/2", "r2/0"], ["r1/3", "r0/2"], ["r1/4", "r2/1"]]
    assert not frontier
    free = Frontier(clips, list(range(10)), in_order=False)
    assert [clip.id for clip in free.take(20)] == [clip.id for clip in reversed(clips)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_generation_goes_on_where_it_stopped(
    signllava: Command, run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    options = ["generate", "-c", run, "--split", "dev", "--batch-size", 1, "--context-source", "predicted"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert signllava(*options, "--out", whole).code == 0
    process = subprocess_command(*options, "--out", killed)
    deadline = time.monotonic() + 120
    part = killed / "parts" / "1-of-1.jsonl"
    while not part.exists() or part.read_text().count("\n") < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    with open(part, "a") as file:
        file.write('{"recording": "dev0')  # half a line
    done = part.read_text().count("\n")
    assert 5 <= done < (whole / "predictions.jsonl").read_text().count("\n")
    ended = signllava("eval", killed)
    assert ended.code == 2
    assert "not finished" in ended.err
    ended = signllava(*options, "--out", killed)
    assert ended.code == 0, ended.err
    assert f"{done} clips were done before" in ended.out
    ours, theirs = (read_predictions(each / "predictions.jsonl") for each in (killed, whole))
    assert [(row.id, row.hypothesis, row.context) for row in ours] == [
        (row.id, row.hypothesis, row.context) for row in theirs
    ]
    ended = signllava(*options, "--out", killed, "--beams", 2)
    assert ended.code == 2
    assert "made otherwise (decoding differ)" in ended.err


def test_a_clip_without_features_is_reported_and_leaves_no_sentence(
    signllava: Command, run: Path, tmp_path: Path, corpus: Path
) -> None:
    import shutil

    import h5py

    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    with h5py.File(data / "mae" / "mae.dev.0.h5", "a") as file:
        del file["dev00/dev00-01"]
    options = [
        "generate",
        "-c",
        run,
        "--split",
        "dev",
        "--max-new-tokens",
        4,
        "--context-source",
        "predicted",
    ]
    options += ["--out", tmp_path / "out", *sets([f"data.root={data}"])]
    ended = signllava(*options)
    assert ended.code == 2
    assert "1 of 38 clips have no features (dev00/dev00-01 in mae)" in ended.err
    ended = signllava(*options, "--set", "data.missing=skip")
    assert ended.code == 0, ended.err
    rows = {row.id: row for row in read_predictions(tmp_path / "out" / "predictions.jsonl")}
    assert len(rows) == 38
    assert (rows["dev00/dev00-01"].hypothesis, rows["dev00/dev00-01"].missing) == ("", "mae")
    assert rows["dev00/dev00-02"].context == [rows["dev00/dev00-00"].hypothesis]
    assert "1 clips have no features and were scored as empty" in signllava("eval", tmp_path / "out").out
