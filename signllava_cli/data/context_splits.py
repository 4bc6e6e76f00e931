"""Gold context from other splits, for benchmarks that distribute the clips of a recording over splits.

PHOENIX-2014T is one: the sentences of one broadcast are in train, dev and test.
"""

from collections.abc import Sequence
from pathlib import Path

from signllava_cli.data.annotations import Clip, Recording, natural_sort_key, read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.data.leaks import is_leaked
from signllava_cli.errors import UserError


class CrossSplitContext:
    """The recordings of `split`, each joined with the recordings of the same name in `other_splits`.

    The clips of a joined recording are ordered by start time if all have one, else by name in natural order.

    Raises:
        UserError: an annotation file is missing or has errors, no recording is in two of the splits, a clip is, or
            the order contradicts the `clip_order` of a split.
    """

    def __init__(self, root: Path, split: str, other_splits: Sequence[str]) -> None:
        self.splits = (split, *other_splits)
        by_split = {
            name: {recording.name: recording for recording in read_annotations(root, name)} for name in self.splits
        }
        self._recordings: dict[str, Recording] = {}
        self._index: dict[str, int] = {}  # clip id -> index in its joined recording
        for name in by_split[split]:
            parts = {part: recordings[name] for part, recordings in by_split.items() if name in recordings}
            self._recordings[name] = joined = _join(name, parts)
            for index, clip in enumerate(joined.clips):
                self._index[clip.id] = index
        self.clips = [clip for recording in by_split[split].values() for clip in recording.clips]
        if len(self._index) == len(self.clips):
            raise UserError(
                f"--context-from: no recording of split {split} is in split {', '.join(other_splits)} of {root}; "
                "drop the option, or name splits that share recordings."
            )

    def sentences(self, clip: Clip, window: int, prelude: int) -> list[str]:
        """The reference sentences in the context of `clip`."""
        return gold_context(self._recordings[clip.recording], self._index[clip.id], window, prelude)

    def count(self, window: int, prelude: int) -> tuple[int, int]:
        """The number of clips of the split with an earlier sentence in another split, and of those whose context
        contains their own reference."""
        extended = sum(self._index[clip.id] > clip.position for clip in self.clips)
        leaked = sum(is_leaked(clip.translation, self.sentences(clip, window, prelude)) for clip in self.clips)
        return extended, leaked


def _join(name: str, parts: dict[str, Recording]) -> Recording:
    """The recording `name` with the clips of all its `parts`, split -> recording."""
    clips = [(clip, split) for split, part in parts.items() for clip in part.clips]
    split_by_clip: dict[str, str] = {}
    for clip, split in clips:
        if clip.name in split_by_clip:
            raise UserError(
                f"--context-from: clip {clip.id} is in split {split_by_clip[clip.name]} and in split {split}, so its "
                "own reference would be in its context; name other splits, or remove it from one annotation."
            )
        split_by_clip[clip.name] = split
    if all(clip.start is not None for clip, _ in clips):
        ordered = sorted(clips, key=lambda pair: pair[0].start or 0.0)
    else:
        ordered = sorted(clips, key=lambda pair: natural_sort_key(pair[0].name))
    for split, part in parts.items():
        if [clip for clip, clip_split in ordered if clip_split == split] != list(part.clips):
            raise UserError(
                f"--context-from: the clip_order of recording {name} in split {split} is not the order of start "
                "times (of clip names, if a clip has no time), so the order of the clips of all splits is unknown; "
                "add `start` to the clips."
            )
    return Recording(name, tuple(clip for clip, _ in ordered))
