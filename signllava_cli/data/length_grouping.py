"""Groups clips of similar expected length into optimizer steps and micro-batches, so that there is little padding.

Used with `train.max_tokens_per_batch`. The result is a function of the lengths, so it is the same on every rank.
"""

import math
from bisect import bisect_left

import numpy as np

WINDOW_STEPS = 50  # steps whose clips are sorted together, as in transformers' LengthGroupedSampler


def group_by_length(
    order: np.ndarray, lengths: np.ndarray, start: int, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """`order`, a permutation of n clips, rearranged so that the clips of a step are of similar length.

    Windows of `WINDOW_STEPS` steps are sorted by length and divided into steps; then the steps are shuffled. Clips at
    the beginning and the end that share a step with another epoch keep their indices.

    Args:
        lengths: of every clip (n,), in dataset order.
        start: the training position of the first clip of `order`; steps begin at multiples of `batch_size`.

    Returns:
        int64 (n,).
    """
    first = -start % batch_size
    num_steps = max(0, len(order) - first) // batch_size
    complete = order[first : first + num_steps * batch_size]  # the clips of complete steps
    windows = np.arange(len(complete)) // (WINDOW_STEPS * batch_size)
    steps = complete[np.lexsort((lengths[complete], windows))].reshape(num_steps, batch_size)
    return np.concatenate([order[:first], rng.permutation(steps).ravel(), order[first + len(complete) :]])


def group_into_batches(lengths: np.ndarray, budget: int, ranks: int) -> list[list[int]]:
    """Divides the n clips of a step into micro-batches of at most `budget` tokens, padding included.

    A clip longer than the budget is a micro-batch of its own. The number of micro-batches is the smallest possible
    multiple of `ranks`, the largest micro-batch is as small as possible, and they are sorted by size, largest first.
    Distributed round-robin, they give every rank the same number of micro-batches of similar sizes.

    Args:
        lengths: of the clips (n,), each at least 1; n is a multiple of `ranks`.

    Returns:
        For each micro-batch, the indices in `lengths` of its clips, longest first.

    >>> group_into_batches(np.array([9, 3, 5, 3, 4, 2]), budget=10, ranks=1)
    [[2, 4], [0], [1, 3, 5]]
    >>> group_into_batches(np.array([9, 3, 5, 3, 4, 2]), budget=10, ranks=2)
    [[0], [4, 1], [3, 5], [2]]
    """
    order = np.argsort(-lengths, kind="stable")
    longest_first = lengths[order].tolist()
    count = math.ceil(len(_batch_starts(longest_first, budget)) / ranks) * ranks
    min_budget = bisect_left(range(budget), -count, key=lambda size: -len(_batch_starts(longest_first, size)))
    batches = [batch.tolist() for batch in np.split(order, _batch_starts(longest_first, min_budget)[1:])]

    def padded_size(batch: list[int]) -> int:
        return len(batch) * int(lengths[batch[0]])

    while len(batches) < count:  # a budget of one token less would give too many
        largest = max((batch for batch in batches if len(batch) > 1), key=padded_size)
        batches.remove(largest)
        middle = len(largest) // 2
        batches += [largest[:middle], largest[middle:]]
    return sorted(batches, key=padded_size, reverse=True)


def _batch_starts(longest_first: list[int], budget: int) -> list[int]:
    """The start index of each micro-batch when each is filled before the next, which gives the fewest of them."""
    starts, start = [], 0
    while start < len(longest_first):
        starts.append(start)
        start += max(1, budget // longest_first[start])
    return starts


def largest_batch(lengths: np.ndarray, budget: int, max_clips: int) -> np.ndarray:
    """The clips of the largest micro-batch that `group_into_batches` can make of `max_clips` of these n clips.

    >>> largest_batch(np.array([3, 7, 3, 4, 5, 3]), budget=10, max_clips=8)
    array([4, 3])
    """
    order = np.argsort(-lengths, kind="stable")
    longest_first = lengths[order]
    remaining = np.minimum(max_clips, len(order) - np.arange(len(order)))
    counts = np.minimum(
        np.maximum(1, budget // longest_first), remaining
    )  # (n,): clips of the batch that begins here
    first = int(np.argmax(counts * longest_first))
    return order[first : first + counts[first]]
