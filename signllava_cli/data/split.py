"""One split of a dataset, opened: its clips, its feature streams, and the clips that have features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from signllava_cli.console import warning
from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.feature_stream import FeatureStream
from signllava_cli.data.index import Clips
from signllava_cli.errors import MAX_NAMES, UserError, summarize_names
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Recipe


class Split:
    """The clips of `split` in dataset order, with their streams in the recipe's order. Only the index is read.

    `annotated` are all clips; `clips` have features in every stream. The others are those of `missing`, which
    exist only when the recipe says `data.missing: skip`; their sentences are still context to the clips after
    them, because they were signed.

    Raises:
        UserError: anything that annotations or shards lack, and clips without features unless skipped.
    """

    def __init__(self, recipe: Recipe, split: str) -> None:
        root = Path(recipe.data.root).expanduser()
        self.name, self.root = split, root
        self.index = open_index(root, split, recipe.streams)
        self.streams = [FeatureStream(self.index, name, config) for name, config in recipe.streams.items()]
        self.has_features = np.ones(len(self.index), bool)
        for stream in self.streams:
            self.has_features &= stream.frame_counts > 0
        self.annotated = Clips(self.index, np.arange(len(self.index)))
        self.clips = Clips(self.index, np.flatnonzero(self.has_features))
        if len(self.clips) < len(self.annotated):
            self._report_missing(recipe)

    def _report_missing(self, recipe: Recipe) -> None:
        rows = np.flatnonzero(~self.has_features)
        named = [f"{self.index.id(row)} in {self.lacking(row)}" for row in rows[: MAX_NAMES + 1].tolist()]
        report = (
            f"Split {self.name} of {self.root}: {len(rows)} of {len(self.annotated)} clips have no features "
            f"({summarize_names(named, len(rows))})"
        )
        if recipe.data.missing == "error" or not self.clips:
            raise UserError(f"{report}; complete the streams, or set data.missing=skip.")
        warning(f"{report}; training leaves them out, and generation gives them an empty hypothesis.")

    @property
    def layouts(self) -> dict[str, str]:
        """Stream -> the name of what its numbers are, where it is known."""
        return {stream.name: stream.layout for stream in self.streams if stream.layout}

    def lacking(self, row: int) -> str | None:
        """The names of the streams that have no frames of the clip in `row`, or None."""
        return ", ".join(stream.name for stream in self.streams if not stream.frame_counts[row]) or None

    def before(self, clip: Clip, window: int, prelude: int) -> list[int]:
        """The rows of the clips whose sentences `clip` sees, in signing order."""
        first = clip.row - clip.position
        return [first + position for position in context_indices(clip.position, window, prelude)]

    def gold_context(self, clip: Clip, window: int, prelude: int) -> list[str]:
        """The reference sentences that `clip` sees."""
        return [self.index.translation(row) for row in self.before(clip, window, prelude)]

    def read(self, clip: Clip) -> dict[str, np.ndarray]:
        """The frames of `clip`: stream name -> float16 array (T, width), T differing per stream."""
        return {stream.name: stream.read(clip) for stream in self.streams}

    def read_all(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """The frames of each of `clips`; every stream is read in the order in which it lies on disk."""
        frames: list[dict[str, np.ndarray]] = [{} for _ in clips]
        for stream in self.streams:
            for index in stream.reading_order(clips):
                frames[index][stream.name] = stream.read(clips[index])
        return frames

    def fingerprint(self) -> str:
        """SHA-256 over the annotation and metadata files, and names, sizes and samples of the shards."""
        return self.index.fingerprint([stream.name for stream in self.streams])
