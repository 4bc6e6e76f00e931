"""The gold context of a benchmark that divides its recordings over splits.

PHOENIX-2014T is such: the sentences of one broadcast stand in train, dev and test.
"""

from collections.abc import Sequence
from pathlib import Path

from signllava_cli.data.annotations import Clip, Recording, natural_sort_key, read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.data.leaks import is_leaked
from signllava_cli.errors import UserError


class CrossSplitContext:
    """The recordings of split `split`, each joined with those of the same name in the splits `others`.

    The clips of a joined recording are ordered by start where all have one, else by name in natural order.

    Raises:
        UserError: an annotation file is missing or faulty, no recording is in two of the splits, a clip is, or the
            order contradicts the `clip_order` of a split.
    """

    def __init__(self, root: Path, split: str, others: Sequence[str]) -> None:
        self.splits = (split, *others)
        by_split = {name: {each.name: each for each in read_annotations(root, name)} for name in self.splits}
        self._recordings: dict[str, Recording] = {}
        self._index: dict[str, int] = {}  # clip id -> index in its joined recording
        for name in by_split[split]:
            parts = {each: recordings[name] for each, recordings in by_split.items() if name in recordings}
            self._recordings[name] = joined = _join(name, parts)
            for index, clip in enumerate(joined.clips):
                self._index[clip.id] = index
        self.own = [clip for recording in by_split[split].values() for clip in recording.clips]
        if len(self._index) == len(self.own):
            raise UserError(
                f"--context-from: no recording of split {split} is in split {', '.join(others)} of {root}; "
                "drop the option, or name splits that share recordings."
            )

    def sentences(self, clip: Clip, window: int, prelude: int) -> list[str]:
        """The reference sentences that `clip` sees."""
        return gold_context(self._recordings[clip.recording], self._index[clip.id], window, prelude)

    def count(self, window: int, prelude: int) -> tuple[int, int]:
        """Of the clips of the split: how many have earlier sentences in another split, and how many see their own
        reference."""
        extended = sum(self._index[clip.id] > clip.position for clip in self.own)
        leaked = sum(is_leaked(clip.translation, self.sentences(clip, window, prelude)) for clip in self.own)
        return extended, leaked


def _join(name: str, parts: dict[str, Recording]) -> Recording:
    placed = [(clip, split) for split, part in parts.items() for clip in part.clips]
    seen: dict[str, str] = {}
    for clip, split in placed:
        if clip.name in seen:
            raise UserError(
                f"--context-from: clip {clip.id} is in split {seen[clip.name]} and in split {split}, so it would see "
                "its own reference; name other splits, or remove it from one annotation."
            )
        seen[clip.name] = split
    if all(clip.start is not None for clip, _ in placed):
        ordered = sorted(placed, key=lambda each: each[0].start or 0.0)
    else:
        ordered = sorted(placed, key=lambda each: natural_sort_key(each[0].name))
    for split, part in parts.items():
        if [clip for clip, of in ordered if of == split] != list(part.clips):
            raise UserError(
                f"--context-from: the clip_order of recording {name} of split {split} is neither that of start times "
                "nor, without times, that of clip names; so its order among the clips of other splits is unknown. "
                "Add `start` to the clips."
            )
    return Recording(name, tuple(clip for clip, _ in ordered))
