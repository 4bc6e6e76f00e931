"""The rule of context: which earlier sentences of its recording are in a clip's prompt."""

from signllava_cli.data.annotations import Recording


def context_indices(position: int, window: int, prelude: int) -> list[int]:
    """The positions, in signing order, of the context sentences of the clip at `position`.

    A clip at position p >= window + prelude has the first `prelude` sentences of its recording and the last `window`
    sentences before it; an earlier clip has all p sentences before it (the rule of Sign_LLaVA).

    >>> context_indices(7, window=2, prelude=2)
    [0, 1, 5, 6]
    >>> context_indices(3, window=2, prelude=2)
    [0, 1, 2]
    >>> context_indices(0, window=2, prelude=2)
    []
    """
    if position < window + prelude:
        return list(range(position))
    return [*range(prelude), *range(position - window, position)]


def gold_context(recording: Recording, position: int, window: int, prelude: int) -> list[str]:
    """The reference sentences in the context of the clip at `position`."""
    return [recording.clips[index].translation for index in context_indices(position, window, prelude)]
