"""Finds clips whose reference is also a sentence of their own gold context."""

from collections.abc import Iterable

from signllava_cli.data.annotations import Recording
from signllava_cli.data.context import gold_context


def find_leaked_references(recordings: Iterable[Recording], window: int, prelude: int) -> list[str]:
    """The ids of the clips whose reference equals a sentence of their own gold context.

    A few such clips are repetitions in the signing ("Thank you."). Many of them mean that a recording contains two
    signers of one script, or the same clips twice: gold context then contains the answer.
    """
    return [
        clip.id
        for recording in recordings
        for clip in recording.clips
        if is_leaked(clip.translation, gold_context(recording, clip.position, window, prelude))
    ]


def is_leaked(reference: str, context: Iterable[str]) -> bool:
    """Whether `reference` equals a sentence of `context`, up to surrounding whitespace."""
    return reference.strip() in (sentence.strip() for sentence in context)
