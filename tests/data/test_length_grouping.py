"""Batches of at most `max_tokens_per_batch` tokens: equal on every rank, within the budget, with little padding."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ALL_TASKS, Ended, sets
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.expected_lengths import context_sizes
from signllava_cli.data.length_grouping import group_by_length, group_into_batches
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.training_set import TrainingSet, longest_batch, training_steps
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, read_recipe

BATCH, BUDGET = 12, 300


def training_set(recipe: Recipe) -> TrainingSet:
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    return TrainingSet(
        recipe,
        open_split(recipe.data, recipe.streams, recipe.data.train),
        ExampleBuilder(
            prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )


@pytest.fixture
def budgeted(settings: list[str]) -> Recipe:
    """The toy recipe with a budget, on a split whose size is not a multiple of the batch size."""
    sizes = [f"train.batch_size={BATCH}", f"train.max_tokens_per_batch={BUDGET}", "context.dropout=0"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, "data.train=dev", *sizes])
    assert len(open_split(recipe.data, recipe.streams, "dev").clips) % BATCH
    return recipe


def clip_indices(examples: TrainingSet, positions: list[int]) -> list[int]:
    rows = examples.split.clips.rows.tolist()
    return [rows.index(examples.clip(position).row) for position in positions]


def test_without_a_budget_the_order_is_a_permutation_per_epoch(recipe: Recipe) -> None:
    examples = training_set(recipe)
    n, seed, (size, micro) = len(examples.split.clips), recipe.run.seed, (4, 4)
    orders = [np.random.default_rng([seed, 0, epoch]).permutation(n) for epoch in range(3)]
    for step in (0, 1, n // size, n // size + 1, 2 * n // size):
        (positions,) = examples.micro_batches(step, 0, 1)
        assert positions == list(range(step * micro, (step + 1) * micro))
        assert clip_indices(examples, positions) == [orders[p // n][p % n] for p in positions]


def test_every_epoch_has_every_clip_once_in_its_own_order(budgeted: Recipe) -> None:
    examples = training_set(budgeted)
    n = len(examples.split.clips)
    epochs = [[examples.clip(epoch * n + offset).row for offset in range(n)] for epoch in range(3)]
    assert all(sorted(epoch) == examples.split.clips.rows.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_micro_batches_of_any_number_of_ranks_are_within_the_budget(budgeted: Recipe) -> None:
    examples = training_set(budgeted)
    steps = 3 * len(examples.split.clips) // BATCH
    for step in range(steps):
        for ranks in (1, 2, 4):
            by_rank = [examples.micro_batches(step, rank, ranks) for rank in range(ranks)]
            assert len({len(batches) for batches in by_rank}) == 1
            batches = [batch for rank_batches in by_rank for batch in rank_batches]
            assert sorted(p for batch in batches for p in batch) == list(range(step * BATCH, (step + 1) * BATCH))
            lengths = [examples.lengths[clip_indices(examples, batch)] for batch in batches]
            assert all(len(batch) == 1 or len(batch) * batch.max() <= BUDGET for batch in lengths)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_clips_of_any_length_can_be_grouped(ranks: int) -> None:
    """Also clips that are all longer than the budget, and clips that fit into one micro-batch."""
    rng = np.random.default_rng(ranks)
    for budget in (1, 40, 200, 10**6):
        lengths = rng.integers(1, 100, 24)
        batches = group_into_batches(lengths, budget, ranks)
        assert len(batches) % ranks == 0
        assert sorted(index for batch in batches for index in batch) == list(range(24))
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)


def test_a_later_start_gives_the_same_steps(budgeted: Recipe) -> None:
    steps = 2 * len(open_split(budgeted.data, budgeted.streams, "dev").clips) // BATCH
    collate = training_collator(budgeted, pad_id=0)
    all_steps = list(training_steps(budgeted, training_set(budgeted), 0, steps, collate, 0, 1))
    for first in (1, steps // 2, steps // 2 + 1, steps - 1):
        later = list(training_steps(budgeted, training_set(budgeted), first, steps, collate, 0, 1))
        assert [[b.clips for b in step] for step in later] == [[b.clips for b in step] for step in all_steps[first:]]


def padding_share(lengths: np.ndarray, batches: list[list[int]]) -> float:
    """The share of padding in micro-batches of clips."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - float(lengths[np.concatenate(batches)].sum()) / padded


@pytest.mark.parametrize(("batch_size", "micro"), [(16, 8), (64, 4), (256, 16)])
def test_grouping_by_length_halves_the_padding(batch_size: int, micro: int) -> None:
    """Compared with random order and the same memory: `micro` clips of the median length of the longest per batch."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(5.5, 0.6, 20_000)), 30, 2047).astype(np.int64)
    order = rng.permutation(len(lengths))
    random_batches = [order[start : start + micro].tolist() for start in range(0, len(order), micro)]
    budget = micro * int(np.median([lengths[batch].max() for batch in random_batches]))
    grouped = group_by_length(order, lengths, 5 * len(order), batch_size, rng)
    assert sorted(grouped.tolist()) == list(range(len(order)))
    steps = [grouped[start : start + batch_size] for start in range(0, len(grouped), batch_size)]
    grouped_batches = [
        step[batch].tolist() for step in steps for batch in group_into_batches(lengths[step], budget, 1)
    ]
    before, after = padding_share(lengths, random_batches), padding_share(lengths, grouped_batches)
    print(f"batch_size {batch_size}: padding {before:.1%} in random order, {after:.1%} grouped")
    assert after <= before / 2


@pytest.mark.parametrize("context", [(2, 2), (0, 0), (3, 0), (0, 1), (50, 50)])
def test_context_sizes_are_those_of_the_gold_context(recipe: Recipe, context: tuple[int, int]) -> None:
    split = open_split(recipe.data, recipe.streams, "dev")
    contexts = [split.gold_context(clip, *context) for clip in split.annotated]
    sizes, sentences = context_sizes(split.index, *context)
    assert sizes.tolist() == [sum(len(sentence.encode()) for sentence in context) for context in contexts]
    assert sentences.tolist() == [len(context) for context in contexts]


@pytest.mark.parametrize("context", [(2, 2), (0, 0), (3, 0), (0, 1)])
def test_expected_lengths_are_close_to_the_true_ones(settings: list[str], context: tuple[int, int]) -> None:
    window, prelude = context
    overrides = [f"context.window={window}", f"context.prelude={prelude}", "context.dropout=0"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *overrides, "streams.mae.stride=2", "data.max_seq_len=130"])
    examples = training_set(recipe)
    n = len(examples.split.clips)
    expected = examples.lengths[clip_indices(examples, list(range(n)))]
    true = np.array([examples[position].seq_len - 1 for position in range(n)])
    assert expected.max() <= 129
    assert np.abs(expected / true - 1).max() < 0.1
    assert abs(expected.sum() / true.sum() - 1) < 0.02


@pytest.mark.parametrize("budget", ["null", "200", "300", "100000"])
def test_no_training_batch_is_larger_than_the_longest_batch(settings: list[str], budget: str) -> None:
    sizes = [f"train.batch_size={BATCH}", f"train.max_tokens_per_batch={budget}", "train.micro_batch_size=3"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *sizes, "data.train=dev"])
    examples = training_set(recipe)
    collate = training_collator(recipe, pad_id=0)
    longest = longest_batch(recipe, examples, collate).input_ids.numel()
    steps = training_steps(recipe, examples, 0, 2 * len(examples.split.clips) // BATCH, collate, 0, 1)
    token_counts = [batch.input_ids.numel() for step in steps for batch in step]
    assert 0.5 * longest <= max(token_counts) <= 1.05 * longest  # the lengths are estimates


Command = Callable[..., Ended]


def logged_values(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


def test_losses_do_not_depend_on_the_budget(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    """From one clip per micro-batch to one micro-batch per step."""
    common = [*settings, *ALL_TASKS, "train.batch_size=8", "train.micro_batch_size=3", "train.max_steps=4"]
    runs = {budget: tmp_path / str(budget) for budget in (1, 250, 100_000)}
    for budget, run in runs.items():
        overrides = [f"train.max_tokens_per_batch={budget}", f"run.output_dir={run}"]
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*common, *overrides]))
        assert ended.code == 0, ended.err
    assert logged_values(runs[1]) == pytest.approx(logged_values(runs[250]), rel=1e-5)
    assert logged_values(runs[1]) == pytest.approx(logged_values(runs[100_000]), rel=1e-5)


@pytest.mark.drill
def test_a_resumed_run_with_a_budget_equals_an_uninterrupted_one(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """On a split so small that the run lasts into its third epoch."""
    common = [
        *settings,
        *ALL_TASKS,
        "data.train=dev",
        "train.max_steps=14",
        "train.eval_steps=7",
        "train.save_total_limit=20",
    ]
    common += ["train.batch_size=8", "train.max_tokens_per_batch=250", "train.save_steps=5"]
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    command = ["pretrain", "-r", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={uninterrupted}"])).code == 0
    for step in (1, 6, 11):
        ended = signllava(*command, *sets([*common, f"run.output_dir={resumed}", f"train.stop_at_step={step}"]))
        assert ended.code == 75, ended.out + ended.err
    assert signllava(*command, *sets([*common, f"run.output_dir={resumed}"])).code == 0
    expected, weights = (load_file(run / "last" / "projector.safetensors") for run in (uninterrupted, resumed))
    assert all(np.array_equal(expected[name], weights[name]) for name in expected.keys() | weights.keys())
    assert logged_values(uninterrupted) == logged_values(resumed)
