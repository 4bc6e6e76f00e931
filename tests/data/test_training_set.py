"""The training sequence is a function of (seed, position) alone."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from signllava_cli.data.batches import Batch, training_batches
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.prompts import PromptWriter
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe, build_recipe


def training_set(recipe: Recipe) -> TrainingSet:
    prompts = PromptWriter(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    return TrainingSet(recipe, Split(recipe, "dev"), ExampleBuilder(recipe, prompts))


def same(one: Batch, other: Batch) -> bool:
    tensors = ("input_ids", "attention_mask", "targets", "predictors")
    return one.clips == other.clips and all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors)


def test_an_epoch_holds_every_clip_once_and_each_has_its_own_order(recipe: Recipe) -> None:
    examples = training_set(recipe)
    n = len(examples.split.clips)
    epochs = [[examples.clip(e * n + i).id for i in range(n)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(clip.id for clip in examples.split.clips)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_example_does_not_depend_on_what_was_read_before(recipe: Recipe) -> None:
    n = len(training_set(recipe).split.clips)
    for position in (0, 5, n + 3, 4 * n + 1):
        fresh, used = training_set(recipe), training_set(recipe)
        for other in (n - 1, 2 * n, 7):
            used[other]
        assert fresh[position].prompt == used[position].prompt
        assert fresh[position].clip == used[position].clip


def test_context_dropout_leaves_context_out_as_often_as_it_says(recipe: Recipe) -> None:
    settings = recipe.to_dict()
    settings["context"]["dropout"] = 0.5
    examples = training_set(build_recipe(settings))
    later = [p for p in range(3 * len(examples.split.clips)) if examples.clip(p).position > 3]
    bare = sum(not examples[p].context for p in later)
    assert 0.35 < bare / len(later) < 0.65


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("micro", [1, 2])
def test_the_ranks_together_compute_each_position_once(recipe: Recipe, ranks: int, micro: int) -> None:
    settings = recipe.to_dict()
    settings["train"] |= {"batch_size": 8, "micro_batch_size": micro}
    examples = training_set(build_recipe(settings))
    for step in range(3):
        shares = [examples.micro_batches(step, rank, ranks) for rank in range(ranks)]
        assert sorted(p for share in shares for part in share for p in part) == list(range(8 * step, 8 * step + 8))
        assert {len(share) for share in shares} == {8 // (ranks * micro)}


def test_workers_do_not_change_the_batches(recipe: Recipe) -> None:
    settings = recipe.to_dict()
    settings["data"]["workers"] = 2
    alone = list(training_steps(recipe, training_set(recipe), 3, 6, training_batches(recipe, 0), 0, 1))
    with_workers = list(
        training_steps(recipe, training_set(build_recipe(settings)), 3, 6, training_batches(recipe, 0), 0, 1)
    )
    assert all(
        same(a, b) for one, two in zip(alone, with_workers, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_in_a_worker_is_one_line(recipe: Recipe, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe.to_dict()
    settings["data"]["workers"] = workers
    examples = training_set(build_recipe(settings))

    def refuse(*_: object) -> None:
        raise UserError("clip x: no frames")

    monkeypatch.setattr(examples.split, "read_all", refuse)
    with pytest.raises(UserError) as fault:
        list(training_steps(build_recipe(settings), examples, 0, 1, training_batches(recipe, 0), 0, 1))
    assert str(fault.value) == "clip x: no frames"


def test_the_corpus_is_only_read(corpus: Path, recipe: Recipe) -> None:
    training_set(recipe)  # makes the index
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    training_set(recipe)[0]
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before
