"""The context of training examples: hypotheses, fewer sentences or none, at the configured rates."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import ALL_TASKS, Ended, sets
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.training_set import CONTEXT, TrainingSet, training_steps
from signllava_cli.errors import UserError
from signllava_cli.generation.context_source import read_prepared_context
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, build_recipe, read_recipe

Command = Callable[..., Ended]

VARIED_CONTEXT = [
    "context.min_window=0",
    "context.min_prelude=1",
    "context.sentence_dropout=0.2",
    "context.dropout=0.2",
]


def fake_hypothesis(clip: Clip) -> str:
    return f"Said {clip.recording}, {clip.position}."


def position_in(sentence: str) -> int:
    """The position of the clip whose fake hypothesis is `sentence`."""
    return int(sentence.rsplit(", ", 1)[1].removesuffix("."))


def prediction(clip: Clip, hypothesis: str, missing: str | None = None) -> Prediction:
    task = "translation"
    return Prediction(clip.recording, clip.name, clip.position, task, clip.translation, hypothesis, missing=missing)


def write_predictions(file: Path, rows: Iterable[Prediction]) -> Path:
    file.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return file


@pytest.fixture
def make_training_set(settings: list[str]) -> Callable[..., TrainingSet]:
    """Makes a training set of the dev split with some overrides; each clip has a fake hypothesis."""

    def make(*overrides: str) -> TrainingSet:
        base = [*settings, "data.train=dev", "context.dropout=0", *overrides]
        recipe = read_recipe("toy/tiny_pretrain", base)
        split = open_split(recipe.data, recipe.streams, "dev")
        builder = ExampleBuilder(
            PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks),
            recipe.streams,
            recipe.data.max_seq_len,
            recipe.data.min_frames,
            recipe.context.prelude,
        )
        hypotheses = Sentences(len(split.index))
        for clip in split.annotated:
            hypotheses[clip.row] = fake_hypothesis(clip)
        return TrainingSet(recipe, split, builder, hypotheses)

    return make


def late_contexts(examples: TrainingSet, epochs: int) -> list[tuple[str, ...]]:
    """The contexts of the clips that have more sentences before them than window and prelude allow."""
    positions = range(epochs * len(examples.split.clips))
    return [examples[p].context for p in positions if examples.clip(p).position >= 4]


def assert_share(hits: int, total: int, expected: float) -> None:
    """`hits` differs from the expected number by at most five standard deviations."""
    assert abs(hits - total * expected) <= 5 * math.sqrt(total * expected * (1 - expected)), (hits, total, expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixed_example_has_only_hypotheses_or_only_references(
    make_training_set: Callable[..., TrainingSet], share: float
) -> None:
    contexts = late_contexts(
        make_training_set("context.source=mixed:F", f"context.predicted_share={share}"), epochs=10
    )
    predicted = [{sentence.startswith("Said ") for sentence in context} for context in contexts]
    assert all(len(kinds) == 1 for kinds in predicted)
    assert_share(sum(kinds == {True} for kinds in predicted), len(contexts), share)


def test_the_source_selects_references_or_hypotheses(make_training_set: Callable[..., TrainingSet]) -> None:
    for source, is_predicted in (("gold", False), ("predicted:F", True)):
        for context in late_contexts(make_training_set(f"context.source={source}"), epochs=1):
            assert [sentence.startswith("Said ") for sentence in context] == [is_predicted] * 4


def test_window_and_prelude_are_sampled_from_inclusive_ranges(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    examples = make_training_set("context.source=predicted:F", "context.min_window=0", "context.min_prelude=1")
    counts: Counter[tuple[int, int]] = Counter()
    for p in range(10 * len(examples.split.clips)):
        position, positions = examples.clip(p).position, [position_in(sentence) for sentence in examples[p].context]
        if position >= 4:
            prelude = sum(other < 2 for other in positions)
            window = len(positions) - prelude
            assert positions == [*range(prelude), *range(position - window, position)]
            counts[window, prelude] += 1
        else:
            assert set(positions) <= set(range(position))
    assert counts.keys() == {(window, prelude) for window in (0, 1, 2) for prelude in (1, 2)}
    for count in counts.values():
        assert_share(count, counts.total(), 1 / 6)


def test_sentence_dropout_and_context_dropout_have_the_given_rates(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    contexts = late_contexts(make_training_set("context.sentence_dropout=0.25"), epochs=10)
    assert_share(sum(map(len, contexts)), 4 * len(contexts), 0.75)
    for kept in range(5):
        share = math.comb(4, kept) * 0.75**kept * 0.25 ** (4 - kept)
        assert_share(sum(len(context) == kept for context in contexts), len(contexts), share)
    contexts = late_contexts(make_training_set("context.dropout=0.25"), epochs=10)
    assert {len(context) for context in contexts} == {0, 4}
    assert_share(sum(not context for context in contexts), len(contexts), 0.25)


def test_empty_hypotheses_are_no_context(make_training_set: Callable[..., TrainingSet], tmp_path: Path) -> None:
    """Both of clips without features and of clips for which the model generated nothing."""
    split = make_training_set().split
    rows = [prediction(clip, fake_hypothesis(clip) if clip.position % 3 else "", "mae") for clip in split.annotated]
    hypotheses, _ = read_prepared_context(str(write_predictions(tmp_path / "f.jsonl", rows)), split, "context.source")
    examples = make_training_set("context.source=predicted:F", "context.window=3", "context.prelude=0")
    examples.contexts.hypotheses = hypotheses
    for p in range(len(split.clips)):
        before = range(max(0, examples.clip(p).position - 3), examples.clip(p).position)
        assert [position_in(sentence) for sentence in examples[p].context] == [
            position for position in before if position % 3
        ]


def test_truncation_removes_the_oldest_sentence_of_the_sampled_window_first(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    settings = [*VARIED_CONTEXT, "context.source=predicted:F", "data.min_frames=1"]
    full_examples, short_examples = make_training_set(*settings), make_training_set(*settings, "data.max_seq_len=85")
    num_different = 0
    for p in range(6 * len(full_examples.split.clips)):
        rng = np.random.default_rng([full_examples.seed, CONTEXT, p])
        sentences, prelude = full_examples.contexts.sample(full_examples.clip(p), rng)
        assert full_examples[p].context == tuple(sentences)
        truncated = short_examples[p]
        for _ in range(truncated.truncation.sentences):
            sentences.pop(min(prelude, len(sentences) - 1))
        assert truncated.context == tuple(sentences)
        num_different += truncated.truncation.sentences > 0 and prelude not in (0, 2)
    assert num_different > 10  # with the recipe's prelude, 2, another sentence would have been removed


def test_contexts_depend_neither_on_workers_nor_on_ranks_nor_on_the_start(
    make_training_set: Callable[..., TrainingSet],
) -> None:
    def contexts(first: int, rank: int, ranks: int, *overrides: str) -> list[list[tuple[int, ...]]]:
        settings = [*VARIED_CONTEXT, "context.source=mixed:F", "train.micro_batch_size=2", *overrides]
        examples = make_training_set(*settings)
        collate = training_collator(examples.recipe, 0)
        steps = training_steps(examples.recipe, examples, first, 24, collate, rank, ranks)
        return [[tuple(row) for batch in step for row in rows(batch.input_ids.tolist())] for step in steps]

    def rows(padded: list[list[int]]) -> list[list[int]]:
        return [[token for token in row if token != 0] for row in padded]

    expected = contexts(0, 0, 1)
    assert len({row for step in expected for row in step}) > 50
    assert contexts(0, 0, 1, "data.num_workers=2") == expected
    assert contexts(17, 0, 1) == expected[17:]  # in the second epoch
    ranks = zip(contexts(0, 0, 2), contexts(0, 1, 2), strict=True)
    assert [sorted(one + other) for one, other in ranks] == [sorted(step) for step in expected]


def test_the_dev_split_has_its_whole_gold_context(make_training_set: Callable[..., TrainingSet]) -> None:
    examples = make_training_set(*VARIED_CONTEXT, "context.source=predicted:F")
    split = examples.split
    dev = LabeledClips(examples.recipe, split, examples.builder, examples.recipe.tasks.dev)
    clips = list(split.clips)
    examples_of_dev = dev.examples(clips, [np.random.default_rng(clip.row) for clip in clips])
    expected = [split.gold_context(clip, 2, 2) for clip in clips]
    assert [list(example.context) for example in examples_of_dev] == expected
    assert [list(example.context) for example in dev.prompts_only(clips, reserve=8)] == expected


def test_mixed_context_from_generate_to_a_resumed_run(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """With hypotheses of `generate`, a resumed run equals an uninterrupted one, and a changed file is an error."""
    common = [*settings, *ALL_TASKS, "data.train=dev", "train.max_steps=4", "train.preflight=false"]
    first, predictions = tmp_path / "first", tmp_path / "predictions"
    pretrain = ["pretrain", "-r", "toy/tiny_pretrain"]
    assert signllava(*pretrain, *sets([*common, "train.max_steps=1", f"run.output_dir={first}"])).code == 0
    narrowed = ["--context", 1, "--prelude", 0, "--context-source", "predicted", "--out", predictions]
    ended = signllava("generate", "-c", first, "--set", "generate.split=dev", *narrowed, "--max-new-tokens", 4)
    assert ended.code == 0, ended.err

    mixed = [*common, f"context.source=mixed:{predictions}"]
    runs = {name: tmp_path / name for name in ("uninterrupted", "resumed", "gold")}
    ended = signllava(*pretrain, *sets([*mixed, f"run.output_dir={runs['uninterrupted']}"]))
    assert ended.code == 0, ended.err
    for step in (1, 3):
        ended = signllava(
            *pretrain, *sets([*mixed, f"run.output_dir={runs['resumed']}", f"train.stop_at_step={step}"])
        )
        assert ended.code == 75, ended.err
    lines = (predictions / "predictions.jsonl").read_text()
    changed = [*read_predictions(predictions / "predictions.jsonl")]
    changed[0] = Prediction(**{**asdict(changed[0]), "hypothesis": "Something else."})
    write_predictions(predictions / "predictions.jsonl", changed)
    ended = signllava(*pretrain, *sets([*mixed, f"run.output_dir={runs['resumed']}"]))
    assert (ended.code, "was trained on other data" in ended.err) == (2, True)
    (predictions / "predictions.jsonl").write_text(lines)
    assert signllava(*pretrain, *sets([*mixed, f"run.output_dir={runs['resumed']}"])).code == 0
    assert signllava(*pretrain, *sets([*common, f"run.output_dir={runs['gold']}"])).code == 0

    weights = {name: load_file(run / "last" / "projector.safetensors") for name, run in runs.items()}
    for name, tensor in weights["uninterrupted"].items():
        assert np.array_equal(tensor, weights["resumed"][name]), name
    assert any(not np.array_equal(tensor, weights["gold"][name]) for name, tensor in weights["uninterrupted"].items())


def test_generation_uses_the_upper_ends_of_the_ranges_or_the_options(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """The minimums apply to training alone: options of generation may be smaller."""
    ranges = ["context.min_window=1", "context.min_prelude=1", "train.max_steps=1"]
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *ranges])).code == 0
    for options, (window, prelude) in {(): (2, 2), ("--context", 0): (0, 2), ("--prelude", 0): (2, 0)}.items():
        out = tmp_path / f"{window}-{prelude}"
        words = ["--split", "dev", "--context-source", "gold", "--max-new-tokens", 1, "--out", out, *options]
        ended = signllava("generate", "-c", tmp_path / "run", *words)
        assert ended.code == 0, ended.err
        rows = read_predictions(out / "predictions.jsonl")
        assert {len(row.context) for row in rows if row.position >= 4} == {window + prelude}


def test_errors_of_a_file_of_other_data_name_the_clips(
    signllava: Command, settings: list[str], recipe: Recipe, tmp_path: Path
) -> None:
    clips = list(open_split(recipe.data, recipe.streams, "dev").annotated)
    file = tmp_path / "predictions.jsonl"
    rows = [prediction(clip, fake_hypothesis(clip)) for clip in clips]
    of_other_data = Prediction(**{**asdict(rows[7]), "reference": "Another sentence."})
    command = ["pretrain", "-r", "toy/tiny_pretrain"]
    command += sets([*settings, "data.train=dev", f"context.source=predicted:{file}"])
    for faulty, words in (
        (rows[2:], f"lacks 2 sentences of split dev ({clips[0].id}, {clips[1].id}); run `signllava generate"),
        ([*rows[:7], of_other_data, *rows[8:]], f"1 clip of split dev has another reference in it ({clips[7].id})"),
    ):
        write_predictions(file, faulty)
        ended = signllava(*command)
        assert ended.code == 2
        assert f"context.source: predicted:{file}: the file " in ended.err
        assert words in ended.err
    file.unlink()
    ended = signllava(*command)
    assert (ended.code, f"{file} cannot be read" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("context", "error"),
    [
        ({"source": "mixed"}, "context.source: expected gold, predicted:FILE or mixed:FILE, got 'mixed'"),
        ({"window": 1, "min_window": 2}, "context.min_window: 2 is more than context.window, 1"),
        ({"min_prelude": 1}, "context.min_prelude: 1 is more than context.prelude, 0"),
        ({"sentence_dropout": 1}, "context.sentence_dropout: input should be less than 1"),
        ({"predicted_share": 1.5}, "context.predicted_share: input should be less than or equal to 1"),
    ],
)
def test_impossible_context_configs_are_errors(context: dict[str, object], error: str) -> None:
    with pytest.raises(UserError) as raised:
        build_recipe({"context": context})
    assert error in str(raised.value)
