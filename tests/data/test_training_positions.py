"""The positions, orders and batches of training against their description, on a few clips and without an LLM."""

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signllava_cli.data import training_set as module
from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.length_grouping import group_by_length, group_into_batches
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.data.training_set import TrainingSet, longest_batch, training_steps
from signllava_cli.errors import UserError
from signllava_cli.files import write_json
from signllava_cli.model.tiny_llm import train_tokenizer
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, read_recipe

LENGTHS = [3, 9, 2, 7, 5, 1, 8, 4, 6, 12, 11]  # frames of the clips
STREAM = "mae"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of three recordings with eleven clips."""
    folder = tmp_path_factory.mktemp("dataset")
    annotation: dict[str, Any] = {}
    frames: dict[str, dict[str, np.ndarray]] = {}
    for number, length in enumerate(LENGTHS):
        recording, clip = f"r{number // 4}", f"c{number}"
        annotation.setdefault(recording, {"clip_order": []})["clip_order"].append(clip)
        annotation[recording][clip] = {"translation": f"Sentence {'long ' * (number % 3)}{number}."}
        frames.setdefault(recording, {})[clip] = np.full((length, 4), number, np.float16)
    write_json(folder / "annotation.train.json", annotation)
    write_stream(folder, "train", STREAM, frames, 1)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["Sentence long 1 2 3 system user assistant"])


def make_recipe(dataset: Path, *settings: str) -> Recipe:
    common = [
        f"data.root={dataset}",
        f"streams={{{STREAM}: {{width: 4}}}}",
        "train.batch_size=4",
        "train.micro_batch_size=2",
        "run.seed=3",
        "data.num_workers=0",
        "tasks.train={translation: 1}",
        "tasks.paraphrases=0",
    ]
    return read_recipe("toy/tiny_pretrain", [*common, *settings])


Open = Callable[..., tuple[Recipe, TrainingSet]]


@pytest.fixture
def training_set(dataset: Path, tokenizer: Any) -> Open:
    def open_set(*settings: str, hypotheses: Any = None) -> tuple[Recipe, TrainingSet]:
        recipe = make_recipe(dataset, *settings)
        prompts = PromptBuilder(tokenizer, recipe.tasks)
        data = recipe.data
        builder = ExampleBuilder(prompts, recipe.streams, data.max_seq_len, data.min_frames, recipe.context.prelude)
        return recipe, TrainingSet(recipe, open_split(data, recipe.streams, "train"), builder, hypotheses)

    return open_set


NUM_CLIPS = len(LENGTHS)


def test_the_clip_at_a_position_is_the_next_of_the_order_of_its_epoch(training_set: Open) -> None:
    """The order of an epoch is numpy's permutation of (seed, 0, epoch), in any order of requests."""
    _, examples = training_set()
    names = [clip.name for clip in examples.split.clips]
    orders = [np.random.default_rng([3, 0, epoch]).permutation(NUM_CLIPS) for epoch in range(4)]
    for position in [0, 10, 11, 43, 12, 9, 33, 21, 22, 1]:
        epoch, index = divmod(position, NUM_CLIPS)
        assert examples.clip(position).name == names[orders[epoch][index]]
        assert examples[position].id == examples.clip(position).id
    assert len({tuple(order) for order in orders}) == 4


def test_the_orders_of_the_adjacent_epochs_alone_are_kept(
    training_set: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may contain clips of two epochs; each order is made once, and memory does not grow."""
    _, examples = training_set()
    made: list[int] = []
    epoch_order = examples._epoch_order

    def record(epoch: int) -> Any:
        made.append(epoch)
        return epoch_order(epoch)

    monkeypatch.setattr(examples, "_epoch_order", record)
    for epoch in (0, 1, 0, 1, 2, 1, 3):
        examples.clip(epoch * NUM_CLIPS)
        assert len(examples._orders) <= 2 + (epoch == 1)
    assert made == [0, 1, 2, 3]
    assert set(examples._orders) == {2, 3}


@pytest.mark.parametrize(("micro", "ranks"), [(1, 1), (2, 1), (4, 1), (2, 2), (1, 2), (1, 4)])
def test_micro_batches_of_a_step_go_to_the_ranks_in_turn(training_set: Open, micro: int, ranks: int) -> None:
    _, examples = training_set(f"train.micro_batch_size={micro}")
    for step in (0, 1, 5):
        expected = [list(range(start, start + micro)) for start in range(4 * step, 4 * step + 4, micro)]
        for rank in range(ranks):
            assert examples.micro_batches(step, rank, ranks) == expected[rank::ranks]


@pytest.mark.parametrize("ranks", [1, 2])
def test_with_a_budget_clips_of_similar_length_share_a_batch(training_set: Open, ranks: int) -> None:
    _, examples = training_set("train.max_tokens_per_batch=190")
    lengths = examples.lengths
    assert len(lengths) == NUM_CLIPS
    for epoch in range(3):
        rng = np.random.default_rng([3, 0, epoch])
        order = group_by_length(rng.permutation(NUM_CLIPS), lengths, epoch * NUM_CLIPS, 4, rng)
        positions = range(epoch * NUM_CLIPS, (epoch + 1) * NUM_CLIPS)
        names = [examples.split.clips[int(index)].name for index in order]
        assert [examples.clip(position).name for position in positions] == names
    for step in (0, 1, 3):
        clips = [examples._clip_index(position) for position in range(4 * step, 4 * step + 4)]
        expected = group_into_batches(lengths[clips], 190, ranks)
        for rank in range(ranks):
            batches = [[4 * step + offset for offset in batch] for batch in expected[rank::ranks]]
            assert examples.micro_batches(step, rank, ranks) == batches


def test_lengths_are_computed_once(training_set: Open) -> None:
    _, examples = training_set()
    assert examples.lengths is examples.lengths


RANDOM = [
    "context.dropout=0.3",
    "context.sentence_dropout=0.3",
    "context.min_window=0",
    "tasks.train={translation: 1, is_reversed: 1}",
]


def test_an_example_is_a_function_of_seed_and_position(training_set: Open) -> None:
    """Context and task have random numbers of their own: those of (seed, 1, position) and (seed, 2, position)."""
    _, examples = training_set(*RANDOM)
    for position in range(3 * NUM_CLIPS):
        clip = examples.clip(position)
        context, prelude = examples.contexts.sample(clip, np.random.default_rng([3, 1, position]))
        instruction = examples.labeled.sampler.sample(clip, np.random.default_rng([3, 2, position]))
        expected = examples.builder.build(clip.id, examples.split.read(clip), instruction, context, prelude)
        one = examples[position]
        assert (one.id, one.context, one.prompt, one.answer) == (
            expected.id,
            expected.context,
            expected.prompt,
            expected.answer,
        )
        assert one.streams[STREAM].tolist() == expected.streams[STREAM].tolist()
    together = examples.__getitems__([5, 0, 9])
    assert [example.id for example in together] == [examples.clip(position).id for position in (5, 0, 9)]
    assert [example.prompt for example in together] == [examples[position].prompt for position in (5, 0, 9)]
    other = training_set(*RANDOM, "run.seed=4")[1]
    assert [other[p].id for p in range(9)] != [examples[p].id for p in range(9)]


def test_training_may_see_hypotheses_of_an_earlier_model(training_set: Open) -> None:
    hypotheses = [f"hypothesis {number}" for number in range(NUM_CLIPS)]
    _, examples = training_set("context.source=predicted:x.jsonl", hypotheses=hypotheses)
    seen = {sentence for position in range(NUM_CLIPS) for sentence in examples[position].context}
    assert seen
    assert seen < set(hypotheses)


def test_a_step_yields_the_micro_batches_of_its_rank(training_set: Open) -> None:
    recipe, examples = training_set()
    collate = training_collator(recipe, 0)
    for rank in (0, 1):
        steps = list(training_steps(recipe, examples, 2, 5, collate, rank, 2))
        clips = [[list(batch.clips) for batch in batches] for batches in steps]
        assert clips == [
            [[examples.clip(p).id for p in batch] for batch in examples.micro_batches(step, rank, 2)]
            for step in (2, 3, 4)
        ]
    assert list(training_steps(recipe, examples, 3, 3, collate, 0, 1)) == []


class Loader:
    """Stands in for torch's DataLoader, to see its arguments."""

    arguments: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, dataset: Any, **arguments: Any) -> None:
        Loader.arguments = {"dataset": dataset, **arguments}

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> str:
        return "batch"

    def _shutdown_workers(self) -> None:
        """The workers end with the steps."""


def test_workers_and_pinned_memory_are_those_of_recipe_and_device(
    training_set: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, examples = training_set("data.num_workers=3")
    collate: Any = object()
    monkeypatch.setattr(module, "DataLoader", Loader)
    for has_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        steps = list(training_steps(recipe, examples, 0, 2, collate, 0, 1))
        assert steps == [["batch"] * 2] * 2
        arguments = dict(Loader.arguments)
        assert list(arguments.pop("batch_sampler")) == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert arguments == {
            "dataset": examples,
            "num_workers": 3,
            "collate_fn": collate,
            "pin_memory": has_gpu,
            "worker_init_fn": module.init_worker,
        }


def test_orders_and_lengths_are_computed_before_the_workers_start(
    training_set: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of them computes them again."""
    recipe, examples = training_set("train.max_tokens_per_batch=190")
    computed: list[bool] = []

    class Watching(Loader):
        def __init__(self, dataset: Any, **arguments: Any) -> None:
            computed.append("lengths" in vars(dataset) and bool(dataset._orders))

    monkeypatch.setattr(module, "DataLoader", Watching)
    list(training_steps(recipe, examples, 1, 2, lambda examples: None, 0, 1))  # type: ignore[arg-type, return-value]
    assert computed == [True]


@pytest.mark.parametrize(
    "text", ["clip x: no frames", "Traceback\n  at: UserError: not this\nsignllava.UserError: clip x: no frames\n"]
)
def test_the_error_of_a_worker_is_its_last_message(training_set: Open, text: str) -> None:
    recipe, examples = training_set()

    def refuse(examples: Sequence[Any]) -> Any:
        raise UserError(text)

    with pytest.raises(UserError) as error:
        list(training_steps(recipe, examples, 0, 1, refuse, 0, 1))
    assert str(error.value) == "clip x: no frames"
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_are_prepared_and_end_with_an_error(
    training_set: Open, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the traceback of the error is still held."""
    recipe, examples = training_set(f"data.num_workers={workers}")
    prepared: list[bool] = []
    monkeypatch.setattr(module, "prepare_workers", lambda: prepared.append(True))

    def refuse(examples: Sequence[Any]) -> Any:
        raise UserError("clip x: no frames")

    with pytest.raises(UserError, match="clip x: no frames") as error:
        list(training_steps(recipe, examples, 0, 1, refuse, 0, 1))
    assert error.value.__traceback__ is not None
    assert multiprocessing.active_children() == []
    assert prepared == [True] * bool(workers)


@pytest.mark.parametrize(("budget", "count"), [("null", 2), ("230", 2), ("100", 1), ("100000", 4)])
def test_the_longest_batch_has_the_clips_that_are_expected_to_be_longest(
    training_set: Open, budget: str, count: int
) -> None:
    """With all the gold context of the recipe, and the translation as the answer."""
    recipe, examples = training_set(f"train.max_tokens_per_batch={budget}", "context.window=1", "context.prelude=2")
    split = examples.split
    longest = np.argsort(-examples.lengths, kind="stable")[:count].tolist()
    batch = longest_batch(recipe, examples, training_collator(recipe, 0))
    assert list(batch.clips) == [split.clips[index].id for index in longest]
    expected = [
        examples.builder.build(
            split.clips[index].id,
            split.read(split.clips[index]),
            translation_instruction(recipe.tasks, split.clips[index].translation),
            split.gold_context(split.clips[index], 1, 2),
        )
        for index in longest
    ]
    collated = training_collator(recipe, 0)(expected)
    assert torch.equal(batch.input_ids, collated.input_ids)
    assert torch.equal(batch.targets, collated.targets)
    assert torch.equal(batch.streams[STREAM].frames, collated.streams[STREAM].frames)
