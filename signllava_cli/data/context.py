"""Which earlier sentences of its recording a clip sees."""

from signllava_cli.data.annotations import Recording


def context_indices(position: int, window: int, prelude: int) -> list[int]:
    """The positions, in signing order, of the sentences that the clip at `position` sees.

    A clip at position p >= window + prelude sees the first `prelude` and the last `window` sentences of its
    recording; an earlier one sees all p before it (the rule of Sign_LLaVA).

    >>> context_positions(7, window=2, prelude=2)
    [0, 1, 5, 6]
    >>> context_positions(3, window=2, prelude=2)
    [0, 1, 2]
    >>> context_positions(0, window=2, prelude=2)
    []
    """
    if position < window + prelude:
        return list(range(position))
    return [*range(prelude), *range(position - window, position)]


def gold_context(recording: Recording, position: int, window: int, prelude: int) -> list[str]:
    """The reference sentences that the clip at `position` sees."""
    return [recording.clips[seen].translation for seen in context_indices(position, window, prelude)]
