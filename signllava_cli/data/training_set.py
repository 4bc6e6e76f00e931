"""The endless sequence of training examples, each a function of (seed, position) alone.

Position p is clip number p mod n of epoch p // n, in that epoch's own order. Not the worker, nor the rank,
nor the time of a restart has a say in what it holds. Optimizer step s holds the positions from s * batch_size on,
however they are divided into micro-batches and among ranks.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain

import numpy as np
from torch.utils.data import DataLoader, Dataset

from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Batch, Collate
from signllava_cli.data.context_sampler import ContextSampler
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.expected_lengths import expected_lengths
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.length_grouping import group_by_length, group_into_batches, largest_batch
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe

ORDER, CONTEXT, TASK = 0, 1, 2  # what a draw is for: each purpose has random numbers of its own


class TrainingSet(Dataset[Example]):
    """`TrainingSet(...)[p]` is the example at position p of the training sequence.

    Args:
        hypotheses: clip id -> hypothesis, where `context.source` asks for predicted context.
    """

    def __init__(
        self, recipe: Recipe, split: Split, builder: ExampleBuilder, hypotheses: Mapping[str, str] | None = None
    ) -> None:
        self.split, self.seed = split, recipe.run.seed
        self.contexts = ContextSampler(recipe.context, split.index, hypotheses or {})
        self.labeled = LabeledClips(recipe, split, builder, recipe.tasks.train)
        self.recipe, self.builder = recipe, builder
        self._orders: dict[int, np.ndarray] = {}

    def clip(self, position: int) -> Clip:
        """The clip at `position`."""
        return self.split.clips[self._place(position)]

    def __getitem__(self, position: int) -> Example:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Example]:
        """The examples at `positions`, read in the order in which they lie on disk: what torch's loader asks for."""
        clips = [self.clip(position) for position in positions]
        contexts = [
            self.contexts.sample(clip, self._rng(CONTEXT, position))
            for clip, position in zip(clips, positions, strict=True)
        ]
        return self.labeled.examples(clips, [self._rng(TASK, position) for position in positions], contexts)

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[list[int]]:
        """The positions of optimizer step `step` that `rank` computes, micro-batch by micro-batch.

        Every rank has as many micro-batches as the others. `train.batch_size` is a multiple of `ranks`, and without
        `train.max_tokens_per_batch` one of `train.micro_batch_size` times `ranks`.
        """
        train = self.recipe.train
        size, first = train.micro_batch_size, step * train.batch_size
        if train.max_tokens_per_batch is None:
            parts = [list(range(at, at + size)) for at in range(0, train.batch_size, size)]
        else:
            indices = [self._place(position) for position in range(first, first + train.batch_size)]
            parts = group_into_batches(self.lengths[indices], train.max_tokens_per_batch, ranks)
        return [[first + at for at in part] for part in parts[rank::ranks]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The expected positions of each clip of the split, int64 (clips,)."""
        return expected_lengths(self.split, self.recipe, self.builder.prompts)

    def _place(self, position: int) -> int:
        """Where in the split the clip at `position` stands."""
        epoch, index = divmod(position, len(self.split.clips))
        if epoch not in self._orders:  # the epoch beside it is kept: a step may hold clips of both
            beside = {each: order for each, order in self._orders.items() if abs(each - epoch) == 1}
            self._orders = {**beside, epoch: self._order(epoch)}
        return int(self._orders[epoch][index])

    def _order(self, epoch: int) -> np.ndarray:
        """The places of all clips in the order of `epoch`."""
        rng, clips, train = self._rng(ORDER, epoch), len(self.split.clips), self.recipe.train
        order = rng.permutation(clips)
        if train.max_tokens_per_batch is None:
            return order
        return group_by_length(order, self.lengths, epoch * clips, train.batch_size, rng)

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, number])


def training_steps(
    recipe: Recipe, examples: TrainingSet, first: int, last: int, collate: Collate, rank: int, ranks: int
) -> Iterator[list[Batch]]:
    """For each optimizer step in [first, last), the micro-batches of this rank."""
    plan = partial(examples.micro_batches, rank=rank, ranks=ranks)
    plan(first)  # makes what it needs before the workers are forked, which then need not
    loader = DataLoader(
        examples,
        batch_sampler=chain.from_iterable(map(plan, range(first, last))),
        num_workers=recipe.data.num_workers,
        collate_fn=collate,
        worker_init_fn=_ignore_signals,
    )
    batches = iter(loader)
    try:
        for step in range(first, last):
            yield [next(batches) for _ in plan(step)]
    except UserError as error:  # a loader worker wraps the message in its traceback
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from None


def longest_batch(recipe: Recipe, examples: TrainingSet, collate: Collate) -> Batch:
    """The micro-batch that is expected to have the most positions, padding included, of all that training can meet.

    Its clips show all the context that the recipe could show, and are translated.

    Raises:
        UserError: a clip's frames are damaged, or what it may not lose exceeds the budget.
    """
    train, split = recipe.train, examples.split
    if train.max_tokens_per_batch is None:
        indices = np.argsort(-examples.lengths, kind="stable")[: train.micro_batch_size]
    else:
        indices = largest_batch(examples.lengths, train.max_tokens_per_batch, train.batch_size)
    clips = [split.clips[place] for place in indices.tolist()]
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


def _ignore_signals(worker: int) -> None:
    """A worker neither inherits the run's handlers nor dies of a signal that reaches its whole process group.

    It still ends with the run: the loader tells it to, and its watchdog notices a parent that is gone.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
