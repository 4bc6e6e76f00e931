"""Token-budget batches: a plan of each step that is the same everywhere, keeps the budget and pads little."""

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
        ExampleBuilder(prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude),
    )


@pytest.fixture
def budgeted(settings: list[str]) -> Recipe:
    """The toy recipe with a budget, on a split that no number of whole steps makes up."""
    sizes = [f"train.batch_size={BATCH}", f"train.max_tokens_per_batch={BUDGET}", "context.dropout=0"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, "data.train=dev", *sizes])
    assert len(open_split(recipe.data, recipe.streams, "dev").clips) % BATCH
    return recipe


def places(examples: TrainingSet, positions: list[int]) -> list[int]:
    row_of = examples.split.clips.rows.tolist()
    return [row_of.index(examples.clip(position).row) for position in positions]


def test_without_a_budget_order_and_micro_batches_are_those_of_seed_and_position_alone(recipe: Recipe) -> None:
    examples = training_set(recipe)
    n, seed, (size, micro) = len(examples.split.clips), recipe.run.seed, (4, 4)
    orders = [np.random.default_rng([seed, 0, epoch]).permutation(n) for epoch in range(3)]
    for step in (0, 1, n // size, n // size + 1, 2 * n // size):
        (positions,) = examples.micro_batches(step, 0, 1)
        assert positions == list(range(step * micro, (step + 1) * micro))
        assert places(examples, positions) == [orders[p // n][p % n] for p in positions]


def test_every_epoch_holds_every_clip_once_and_is_of_its_own_order(budgeted: Recipe) -> None:
    examples = training_set(budgeted)
    n = len(examples.split.clips)
    epochs = [[examples.clip(epoch * n + at).row for at in range(n)] for epoch in range(3)]
    assert all(sorted(epoch) == examples.split.clips.rows.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_all_rank_counts_divide_the_same_step_and_keep_the_budget(budgeted: Recipe) -> None:
    examples = training_set(budgeted)
    steps = 3 * len(examples.split.clips) // BATCH
    for step in range(steps):
        for ranks in (1, 2, 4):
            shares = [examples.micro_batches(step, rank, ranks) for rank in range(ranks)]
            assert len({len(share) for share in shares}) == 1
            parts = [part for share in shares for part in share]
            assert sorted(p for part in parts for p in part) == list(range(step * BATCH, (step + 1) * BATCH))
            lengths = [examples.lengths[places(examples, part)] for part in parts]
            assert all(len(part) == 1 or len(part) * part.max() <= BUDGET for part in lengths)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_any_step_can_be_divided(ranks: int) -> None:
    """Also one whose every clip is longer than the budget, or that one micro-batch would hold."""
    rng = np.random.default_rng(ranks)
    for budget in (1, 40, 200, 10**6):
        lengths = rng.integers(1, 100, 24)
        parts = group_into_batches(lengths, budget, ranks)
        assert len(parts) % ranks == 0
        assert sorted(index for part in parts for index in part) == list(range(24))
        assert all(len(part) == 1 or len(part) * lengths[part].max() <= budget for part in parts)


def test_a_later_start_gives_the_same_steps(budgeted: Recipe) -> None:
    steps = 2 * len(open_split(budgeted.data, budgeted.streams, "dev").clips) // BATCH
    collate = training_collator(budgeted, pad_id=0)
    whole = list(training_steps(budgeted, training_set(budgeted), 0, steps, collate, 0, 1))
    for first in (1, steps // 2, steps // 2 + 1, steps - 1):
        later = list(training_steps(budgeted, training_set(budgeted), first, steps, collate, 0, 1))
        assert [[b.clips for b in step] for step in later] == [[b.clips for b in step] for step in whole[first:]]


def padding(lengths: np.ndarray, parts: list[list[int]]) -> float:
    """The share of padding in these micro-batches of clips."""
    padded = sum(len(part) * int(lengths[part].max()) for part in parts)
    return 1 - float(lengths[np.concatenate(parts)].sum()) / padded


@pytest.mark.parametrize(("batch_size", "micro"), [(16, 8), (64, 4), (256, 16)])
def test_little_is_padding(batch_size: int, micro: int) -> None:
    """Beside random order at the same memory: `micro` clips as long as the longest of most batches."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(5.5, 0.6, 20_000)), 30, 2047).astype(np.int64)
    order = rng.permutation(len(lengths))
    at_random = [order[at : at + micro].tolist() for at in range(0, len(order), micro)]
    budget = micro * int(np.median([lengths[part].max() for part in at_random]))
    grouped = group_by_length(order, lengths, 5 * len(order), batch_size, rng)
    assert sorted(grouped.tolist()) == list(range(len(order)))
    steps = [grouped[at : at + batch_size] for at in range(0, len(grouped), batch_size)]
    planned = [step[part].tolist() for step in steps for part in group_into_batches(lengths[step], budget, 1)]
    before, after = padding(lengths, at_random), padding(lengths, planned)
    print(f"batch_size {batch_size}: padding {before:.1%} in random order, {after:.1%} planned")
    assert after <= before / 2


@pytest.mark.parametrize("context", [(2, 2), (0, 0), (3, 0), (0, 1), (50, 50)])
def test_context_is_counted_as_it_is_shown(recipe: Recipe, context: tuple[int, int]) -> None:
    split = open_split(recipe.data, recipe.streams, "dev")
    shown = [split.gold_context(clip, *context) for clip in split.annotated]
    sizes, sentences = context_sizes(split.index, *context)
    assert sizes.tolist() == [sum(len(sentence.encode()) for sentence in each) for each in shown]
    assert sentences.tolist() == [len(each) for each in shown]


@pytest.mark.parametrize("context", [(2, 2), (0, 0), (3, 0), (0, 1)])
def test_expected_lengths_are_near_the_true_ones(settings: list[str], context: tuple[int, int]) -> None:
    window, prelude = context
    shown = [f"context.window={window}", f"context.prelude={prelude}", "context.dropout=0"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *shown, "streams.mae.stride=2", "data.max_seq_len=130"])
    examples = training_set(recipe)
    n = len(examples.split.clips)
    expected = examples.lengths[places(examples, list(range(n)))]
    true = np.array([examples[position].seq_len - 1 for position in range(n)])
    assert expected.max() <= 129
    assert np.abs(expected / true - 1).max() < 0.1
    assert abs(expected.sum() / true.sum() - 1) < 0.02


@pytest.mark.parametrize("budget", ["null", "200", "300", "100000"])
def test_no_batch_of_training_is_larger_than_the_longest(settings: list[str], budget: str) -> None:
    sizes = [f"train.batch_size={BATCH}", f"train.max_tokens_per_batch={budget}", "train.micro_batch_size=3"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *sizes, "data.train=dev"])
    examples = training_set(recipe)
    collate = training_collator(recipe, pad_id=0)
    longest = longest_batch(recipe, examples, collate).input_ids.numel()
    steps = training_steps(recipe, examples, 0, 2 * len(examples.split.clips) // BATCH, collate, 0, 1)
    met = [batch.input_ids.numel() for step in steps for batch in step]
    assert 0.5 * longest <= max(met) <= 1.05 * longest  # lengths are expected ones


Command = Callable[..., Ended]


def told(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


def test_a_budget_divides_a_step_and_does_not_change_it(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """From one clip at a time to the whole step at once."""
    common = [*settings, *ALL_TASKS, "train.batch_size=8", "train.micro_batch_size=3", "train.max_steps=4"]
    runs = {budget: tmp_path / str(budget) for budget in (1, 250, 100_000)}
    for budget, run in runs.items():
        own = [f"train.max_tokens_per_batch={budget}", f"run.output_dir={run}"]
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*common, *own]))
        assert ended.code == 0, ended.err
    assert told(runs[1]) == pytest.approx(told(runs[250]), rel=1e-5)
    assert told(runs[1]) == pytest.approx(told(runs[100_000]), rel=1e-5)


def test_a_stopped_run_with_a_budget_ends_with_the_weights_of_one_that_was_not(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """On a split so small that the run crosses into its second and third epoch."""
    common = [
        *settings,
        *ALL_TASKS,
        "data.train=dev",
        "train.max_steps=14",
        "train.eval_steps=7",
        "train.save_total_limit=20",
    ]
    common += ["train.batch_size=8", "train.max_tokens_per_batch=250", "train.save_steps=5"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    command = ["pretrain", "-r", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={whole}"])).code == 0
    for step in (1, 6, 11):
        ended = signllava(*command, *sets([*common, f"run.output_dir={stopped}", f"train.stop_at_step={step}"]))
        assert ended.code == 75, ended.out + ended.err
    assert signllava(*command, *sets([*common, f"run.output_dir={stopped}"])).code == 0
    ours, theirs = (load_file(run / "last" / "projector.safetensors") for run in (whole, stopped))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())
    assert told(whole) == told(stopped)
