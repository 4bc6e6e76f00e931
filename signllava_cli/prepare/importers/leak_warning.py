"""How many references an order or grouping of clips puts into their own gold context."""

from collections.abc import Mapping, Sequence

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Recording
from signllava_cli.data.leaks import find_leaked_references

CONTEXTS = ((1, 0), (2, 2))  # (window, prelude) of the counts


def warn_of_leaks(splits: Mapping[str, Sequence[Recording]], fix: str) -> None:
    """Print, for each split, the share of clips whose own reference is in their gold context, and `fix` if any is."""
    for split, recordings in splits.items():
        clips = sum(len(recording.clips) for recording in recordings)
        leaked = {context: len(find_leaked_references(recordings, *context)) for context in CONTEXTS}
        counts = "; ".join(
            f"{count} of {clips} ({count / clips:.1%}) at window {window}, prelude {prelude}"
            for (window, prelude), count in leaked.items()
        )
        found = f"{split}: in the order written, clips with their own reference in their gold context: {counts}."
        if any(leaked.values()):
            warning(f"{found} That inflates scores with gold context; {fix}.")
        else:
            info(found)
