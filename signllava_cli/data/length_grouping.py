"""Which clips share an optimizer step, and which of these share a micro-batch: planned by their expected lengths.

With a budget of tokens, clips of similar length come together, so that little of a batch is padding. The same lengths
give the same plan on every rank.
"""

import math
from bisect import bisect_left

import numpy as np

WINDOW_STEPS = 50  # steps whose clips are sorted together, as in transformers' LengthGroupedSampler


def group_by_length(
    order: np.ndarray, lengths: np.ndarray, start: int, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """`order`, a permutation of n clips, rearranged so that the clips of a step are of similar length.

    Windows of `WINDOW` steps are sorted by length and cut into steps, and the steps of all windows are shuffled. The
    clips at either end that share a step with another epoch stay where they are.

    Args:
        lengths: of every clip (n,), in dataset order.
        start: the training position of the first clip of `order`; steps begin at multiples of `batch_size`.
    """
    first = -start % batch_size
    steps = max(0, len(order) - first) // batch_size
    whole = order[first : first + steps * batch_size]
    windows = np.arange(len(whole)) // (WINDOW_STEPS * batch_size)
    in_steps = whole[np.lexsort((lengths[whole], windows))].reshape(steps, batch_size)
    return np.concatenate([order[:first], rng.permutation(in_steps).ravel(), order[first + len(whole) :]])


def group_into_batches(lengths: np.ndarray, budget: int, ranks: int) -> list[list[int]]:
    """The n clips of a step divided into micro-batches of at most `budget` positions, padding included.

    A clip longer than the budget stands alone. The micro-batches are a multiple of `ranks` and otherwise as few as
    can be, the largest of them is as small as can be, and they stand in the order of their size. So dealt out in turn
    they give the ranks equally many, and about the same work at a time.

    Args:
        lengths: of the clips (n,), each at least 1; n is a multiple of `ranks`.

    Returns:
        The places in `lengths` of each micro-batch's clips, longest first.

    >>> packed(np.array([9, 3, 5, 3, 4, 2]), budget=10, ranks=1)
    [[2, 4], [0], [1, 3, 5]]
    >>> packed(np.array([9, 3, 5, 3, 4, 2]), budget=10, ranks=2)
    [[0], [4, 1], [3, 5], [2]]
    """
    order = np.argsort(-lengths, kind="stable")
    longest_first = lengths[order].tolist()
    count = math.ceil(len(_batch_starts(longest_first, budget)) / ranks) * ranks
    least = bisect_left(range(budget), -count, key=lambda size: -len(_batch_starts(longest_first, size)))
    parts = [part.tolist() for part in np.split(order, _batch_starts(longest_first, least)[1:])]

    def positions(part: list[int]) -> int:
        return len(part) * int(lengths[part[0]])

    while len(parts) < count:  # one position less would have made too many
        largest = max((part for part in parts if len(part) > 1), key=positions)
        parts.remove(largest)
        middle = len(largest) // 2
        parts += [largest[:middle], largest[middle:]]
    return sorted(parts, key=positions, reverse=True)


def _batch_starts(longest_first: list[int], budget: int) -> list[int]:
    """Where each micro-batch begins when it is filled before the next: no division into fewer keeps the budget."""
    begins, at = [], 0
    while at < len(longest_first):
        begins.append(at)
        at += max(1, budget // longest_first[at])
    return begins


def largest_batch(lengths: np.ndarray, budget: int, most: int) -> np.ndarray:
    """The clips of the largest micro-batch that `packed` could make of these n clips, at most `most` of them a step.

    >>> fullest(np.array([3, 7, 3, 4, 5, 3]), budget=10, most=8)
    array([4, 3])
    """
    order = np.argsort(-lengths, kind="stable")
    longest = lengths[order]
    counts = np.minimum(np.maximum(1, budget // longest), np.minimum(most, len(order) - np.arange(len(order))))
    first = int(np.argmax(counts * longest))
    return order[first : first + counts[first]]
