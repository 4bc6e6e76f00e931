"""The endless sequence of training examples, each a function of (seed, position) alone.

Position p is clip number p mod n of epoch p // n, in that epoch's own order. Not the worker, nor the rank,
nor the time of a restart has a say in what it holds.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Batch, make_batch
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.labelled import LabelledClips
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe

ORDER, CONTEXT, TASK = 0, 1, 2  # what a draw is for: each purpose has random numbers of its own


class TrainingSet(Dataset[Example]):
    """`TrainingSet(...)[p]` is the example at position p of the training sequence."""

    def __init__(self, recipe: Recipe, split: Split, builder: ExampleBuilder) -> None:
        self.split, self.seed, self.dropout = split, recipe.run.seed, recipe.context.dropout
        self.labelled = LabelledClips(recipe, split, builder, recipe.tasks.train)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def clip(self, position: int) -> Clip:
        """The clip at `position`."""
        epoch, index = divmod(position, len(self.split.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(ORDER, epoch).permutation(len(self.split.clips))
        return self.split.clips[self._order[index]]

    def __getitem__(self, position: int) -> Example:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Example]:
        """The examples at `positions`, read in the order in which they lie on disk: what torch's loader asks for."""
        return self.labelled.examples(
            [self.clip(position) for position in positions],
            [self._draw(TASK, position) for position in positions],
            [self._draw(CONTEXT, position).random() >= self.dropout for position in positions],
        )

    def _draw(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, number])


def step_positions(step: int, batch_size: int, micro_batch_size: int, rank: int, ranks: int) -> list[list[int]]:
    """The training positions of optimiser step `step` that `rank` computes, micro-batch by micro-batch.

    Step s holds the positions from s * batch_size on, whatever the number of ranks and micro-batches.

    >>> step_positions(1, batch_size=8, micro_batch_size=2, rank=1, ranks=2)
    [[10, 11], [14, 15]]
    """
    starts = range(rank * micro_batch_size, batch_size, ranks * micro_batch_size)
    first = step * batch_size
    return [list(range(first + start, first + start + micro_batch_size)) for start in starts]


@dataclass(frozen=True)
class RankSchedule(Sampler[list[int]]):
    """The micro-batches of one rank for the steps in [first, last), made as they are needed."""

    first: int
    last: int
    batch_size: int
    micro_batch_size: int
    rank: int
    ranks: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield from step_positions(step, self.batch_size, self.micro_batch_size, self.rank, self.ranks)


def training_steps(
    recipe: Recipe, examples: TrainingSet, first: int, last: int, pad_id: int, rank: int, ranks: int
) -> Iterator[list[Batch]]:
    """For each optimiser step in [first, last), the micro-batches of this rank."""
    train = recipe.train
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    loader = DataLoader(
        examples,
        batch_sampler=RankSchedule(first, last, train.batch_size, train.micro_batch_size, rank, ranks),
        num_workers=recipe.data.workers,
        collate_fn=partial(make_batch, widths=widths, pad_id=pad_id, pad_side="right"),
        worker_init_fn=_leave_signals_to_the_run,
    )
    batches = iter(loader)
    try:
        for _ in range(first, last):
            yield [next(batches) for _ in range(train.batch_size // (train.micro_batch_size * ranks))]
    except UserError as fault:  # a loader worker wraps the message in its traceback
        raise UserError(str(fault).rsplit("UserError: ", 1)[-1].strip()) from None


def _leave_signals_to_the_run(worker: int) -> None:
    """A worker neither inherits the run's handlers nor dies of a signal that reaches its whole process group.

    It still ends with the run: the loader tells it to, and its watchdog notices a parent that is gone.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
