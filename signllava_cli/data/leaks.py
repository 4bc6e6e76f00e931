"""References that a clip would read in its own gold context."""

from collections.abc import Iterable

from signllava_cli.data.annotations import Recording
from signllava_cli.data.context import gold_context


def find_leaked_references(recordings: Iterable[Recording], window: int, prelude: int) -> list[str]:
    """The ids of the clips whose reference, whole and exact, is a sentence of their own gold context.

    Some such clips are repetitions in the signing ("Thank you."). Many of them mean that a recording holds two
    signers of one script, or the same clips twice: gold context then gives the answer away.
    """
    return [
        clip.id
        for recording in recordings
        for clip in recording.clips
        if is_leaked(clip.translation, gold_context(recording, clip.position, window, prelude))
    ]


def is_leaked(reference: str, context: Iterable[str]) -> bool:
    """Whether `reference`, whole and exact, is a sentence of `context`."""
    return reference.strip() in (sentence.strip() for sentence in context)
