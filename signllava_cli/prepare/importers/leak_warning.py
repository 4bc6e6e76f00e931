"""Counts the references that an order or grouping of clips puts into their own gold context."""

from collections.abc import Mapping, Sequence

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Recording
from signllava_cli.data.leaks import find_leaked_references

CONTEXTS = ((1, 0), (2, 2))  # (window, prelude)


def warn_of_leaks(splits: Mapping[str, Sequence[Recording]], fix: str) -> None:
    """Print the share of clips of each split with their own reference in their gold context, and `fix` if any."""
    for split, recordings in splits.items():
        num_clips = sum(len(recording.clips) for recording in recordings)
        num_leaked = {context: len(find_leaked_references(recordings, *context)) for context in CONTEXTS}
        counts = "; ".join(
            f"{count} of {num_clips} ({count / num_clips:.1%}) at window {window}, prelude {prelude}"
            for (window, prelude), count in num_leaked.items()
        )
        message = f"{split}: in this order, clips with their own reference in their gold context: {counts}."
        if any(num_leaked.values()):
            warning(f"{message} This inflates scores with gold context; {fix}.")
        else:
            info(message)
