"""The training sequence is a function of (seed, position) alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ALL_TASKS
from transformers import AutoTokenizer

from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.errors import UserError
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, build_recipe, read_recipe


def training_set(recipe: Recipe) -> TrainingSet:
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    return TrainingSet(
        recipe,
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of `batch`, those of its streams included."""
    batch_tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return batch_tensors | {
        f"{name}.{key}": value
        for name, stream in batch.streams.items()
        for key, value in vars(stream).items()
        if isinstance(value, torch.Tensor)
    }


def test_every_epoch_has_every_clip_once_in_an_order_of_its_own(recipe: Recipe) -> None:
    examples = training_set(recipe)
    n = len(examples.split.clips)
    epochs = [[examples.clip(e * n + i).id for i in range(n)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(clip.id for clip in examples.split.clips)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_example_does_not_depend_on_earlier_reads(recipe: Recipe) -> None:
    n = len(training_set(recipe).split.clips)
    for position in (0, 5, n + 3, 4 * n + 1):
        fresh, used = training_set(recipe), training_set(recipe)
        for other in (n - 1, 2 * n, 7):
            used[other]
        assert fresh[position].prompt == used[position].prompt
        assert fresh[position].id == used[position].id


def test_context_dropout_has_the_given_rate(recipe: Recipe) -> None:
    settings = recipe.to_dict()
    settings["context"]["dropout"] = 0.5
    examples = training_set(build_recipe(settings))
    positions = [p for p in range(3 * len(examples.split.clips)) if examples.clip(p).position > 3]
    num_dropped = sum(not examples[p].context for p in positions)
    assert 0.35 < num_dropped / len(positions) < 0.65


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("micro", [1, 2])
def test_the_ranks_together_compute_each_position_once(recipe: Recipe, ranks: int, micro: int) -> None:
    settings = recipe.to_dict()
    settings["train"] |= {"batch_size": 8, "micro_batch_size": micro}
    examples = training_set(build_recipe(settings))
    for step in range(3):
        by_rank = [examples.micro_batches(step, rank, ranks) for rank in range(ranks)]
        assert sorted(p for batches in by_rank for batch in batches for p in batch) == list(
            range(8 * step, 8 * step + 8)
        )
        assert {len(batches) for batches in by_rank} == {8 // (ranks * micro)}


def batches_and_processes(recipe: Recipe) -> tuple[list[Batch], set[int]]:
    """The batches of steps 3 to 11, which are of two epochs, and the ids of the processes that made them."""
    collate = training_collator(recipe, 0)

    def collate_with_pid(examples: Sequence[Example]) -> Any:
        return collate(examples), os.getpid()

    steps: Any = training_steps(recipe, training_set(recipe), 3, 12, collate_with_pid, 0, 1)
    pairs = [pair for step in steps for pair in step]
    return [batch for batch, _ in pairs], {process for _, process in pairs}


def test_workers_do_not_change_the_batches(settings: list[str]) -> None:
    """Bit-exact, with everything that is sampled for an example."""
    common = [*settings, *ALL_TASKS, "train.micro_batch_size=2"]
    expected, processes = batches_and_processes(read_recipe("toy/tiny_pretrain", common))
    with_workers, workers = batches_and_processes(read_recipe("toy/tiny_pretrain", [*common, "data.num_workers=2"]))
    assert processes == {os.getpid()}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert len(expected) == 18
    for one, other in zip(expected, with_workers, strict=True):
        assert one.clips == other.clips
        expected_tensors, batch_tensors = tensors(one), tensors(other)
        assert {"targets", "sign2vec.frames", "mae.frames"} < expected_tensors.keys()
        assert expected_tensors.keys() == batch_tensors.keys()
        for name, tensor in expected_tensors.items():
            assert torch.equal(tensor, batch_tensors[name]), name


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_one_line(recipe: Recipe, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe.to_dict()
    settings["data"]["num_workers"] = workers
    examples = training_set(build_recipe(settings))

    def refuse(*_: object) -> None:
        raise UserError("clip x: no frames")

    monkeypatch.setattr(examples.split, "read_all", refuse)
    with pytest.raises(UserError) as error:
        list(training_steps(build_recipe(settings), examples, 0, 1, training_collator(recipe, 0), 0, 1))
    assert str(error.value) == "clip x: no frames"


def test_training_does_not_write_to_the_dataset(corpus: Path, recipe: Recipe) -> None:
    training_set(recipe)  # writes the index
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    training_set(recipe)[0]
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before
