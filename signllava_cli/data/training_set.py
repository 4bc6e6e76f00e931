"""The infinite sequence of training examples, each a function of (seed, position) alone.

With n clips, the example at position p is clip p mod n of epoch p // n, in the order of that epoch. It depends on no
worker, rank or restart. Optimizer step s consists of the positions from s * batch_size to (s + 1) * batch_size - 1,
however they are divided into micro-batches and distributed over ranks.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Batch, Collate
from signllava_cli.data.context_sampler import ContextSampler
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.expected_lengths import expected_lengths
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.length_grouping import group_by_length, group_into_batches, largest_batch
from signllava_cli.data.loader_workers import init_worker, prepare_workers
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe

ORDER, CONTEXT, TASK = 0, 1, 2  # each purpose has its own random numbers


class TrainingSet(Dataset[Example]):
    """`TrainingSet(...)[p]` is the example at position p of the training sequence.

    Args:
        hypotheses: of all clips, if `context.source` is `predicted` or `mixed`.
    """

    def __init__(
        self, recipe: Recipe, split: Split, builder: ExampleBuilder, hypotheses: Sentences | None = None
    ) -> None:
        self.split, self.seed = split, recipe.run.seed
        self.contexts = ContextSampler(recipe.context, split.index, hypotheses)
        self.labeled = LabeledClips(recipe, split, builder, recipe.tasks.train)
        self.recipe, self.builder = recipe, builder
        self._orders: dict[int, np.ndarray] = {}

    def clip(self, position: int) -> Clip:
        """The clip at `position`."""
        return self.split.clips[self._clip_index(position)]

    def __getitem__(self, position: int) -> Example:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Example]:
        """The examples at `positions`, read in the order of the disk. torch's DataLoader calls this."""
        clips = [self.clip(position) for position in positions]
        contexts = [
            self.contexts.sample(clip, self._rng(CONTEXT, position))
            for clip, position in zip(clips, positions, strict=True)
        ]
        return self.labeled.examples(clips, [self._rng(TASK, position) for position in positions], contexts)

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[list[int]]:
        """The training positions of each micro-batch of `rank` in optimizer step `step`.

        Every rank has the same number of micro-batches. `train.batch_size` must be a multiple of `ranks`, and without
        `train.max_tokens_per_batch` of `train.micro_batch_size` times `ranks`.
        """
        train = self.recipe.train
        size, first = train.micro_batch_size, step * train.batch_size
        if train.max_tokens_per_batch is None:
            batches = [list(range(start, start + size)) for start in range(0, train.batch_size, size)]
        else:
            indices = [self._clip_index(position) for position in range(first, first + train.batch_size)]
            batches = group_into_batches(self.lengths[indices], train.max_tokens_per_batch, ranks)
        return [[first + offset for offset in batch] for batch in batches[rank::ranks]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The expected sequence length of each clip of the split in tokens, int64 (clips,)."""
        return expected_lengths(self.split, self.recipe, self.builder.prompts)

    def _clip_index(self, position: int) -> int:
        """The index in the split of the clip at `position`."""
        epoch, index = divmod(position, len(self.split.clips))
        if epoch not in self._orders:  # the adjacent epochs are kept: a step may contain clips of two epochs
            adjacent = {other: order for other, order in self._orders.items() if abs(other - epoch) == 1}
            self._orders = {**adjacent, epoch: self._epoch_order(epoch)}
        return int(self._orders[epoch][index])

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """The indices of all clips in the order of `epoch`, int64 (clips,)."""
        rng, num_clips, train = self._rng(ORDER, epoch), len(self.split.clips), self.recipe.train
        order = rng.permutation(num_clips)
        if train.max_tokens_per_batch is None:
            return order
        return group_by_length(order, self.lengths, epoch * num_clips, train.batch_size, rng)

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        """The random numbers for `purpose` at `index`, a training position or an epoch."""
        return np.random.default_rng([self.seed, purpose, index])


def training_steps(
    recipe: Recipe, examples: TrainingSet, first: int, last: int, collate: Collate, rank: int, ranks: int
) -> Iterator[list[Batch]]:
    """Yields the micro-batches of `rank` for each optimizer step in [first, last), in pinned memory for a GPU."""
    positions_of_step = partial(examples.micro_batches, rank=rank, ranks=ranks)
    positions_of_step(first)  # computes the cached order and lengths once, before the workers are forked
    if recipe.data.num_workers:
        prepare_workers()
    loader = DataLoader(
        examples,
        batch_sampler=chain.from_iterable(map(positions_of_step, range(first, last))),
        num_workers=recipe.data.num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=init_worker,
    )
    batches: Any = iter(loader)
    try:
        for step in range(first, last):
            yield [next(batches) for _ in positions_of_step(step)]
    except UserError as error:  # a loader worker puts its traceback before the message
        raise UserError(error.args[0].rsplit("UserError: ", 1)[-1].strip()) from None
    finally:  # the traceback of an error holds the workers, which ignore SIGTERM: Python would wait for them at exit
        if recipe.data.num_workers:
            batches._shutdown_workers()


def longest_batch(recipe: Recipe, examples: TrainingSet, collate: Collate) -> Batch:
    """The micro-batch with the largest expected size, padding included, of all that training can have.

    Its clips have all the gold context that the recipe allows, and the translation as the answer.

    Raises:
        UserError: a clip's frames are damaged, or a clip does not fit `data.max_seq_len`.
    """
    train, split = recipe.train, examples.split
    if train.max_tokens_per_batch is None:
        indices = np.argsort(-examples.lengths, kind="stable")[: train.micro_batch_size]
    else:
        indices = largest_batch(examples.lengths, train.max_tokens_per_batch, train.batch_size)
    clips = [split.clips[index] for index in indices.tolist()]
    window, prelude = recipe.context.window, recipe.context.prelude
    made = [
        examples.builder.build(
            clip.id,
            frames,
            translation_instruction(recipe.tasks, clip.translation),
            split.gold_context(clip, window, prelude),
        )
        for clip, frames in zip(clips, split.read_all(clips), strict=True)
    ]
    return collate(made)
