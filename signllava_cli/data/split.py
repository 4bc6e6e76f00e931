"""An open split of a dataset: its clips, their feature streams, and which clips have features."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.feature_stream import FeatureStream
from signllava_cli.data.index import Clips, Index
from signllava_cli.data.projector_inputs import ProjectorInput, cut_to_shortest, projector_inputs
from signllava_cli.errors import MAX_NAMES, UserError, format_count, summarize_names
from signllava_cli.recipe import Stream


class Split:
    """The clips of a split in dataset order, with their streams in the order of `streams`. Only the index is read.

    `annotated`: all clips. `clips`: those with features in every stream. The sentences of the other clips were signed
    too, so they remain context of later clips. `inputs`: what each projector reads. Joined streams are cut to the
    shortest of them.

    Args:
        index: of the split, as `prepare.indexing.open_split` opens it.
        streams: the section `streams` of the recipe.
        missing: for clips without features in a stream: `error`, or `skip` them with a warning.

    Raises:
        UserError: clips lack features and `missing` is `error`, no clip has features, or joined streams of a clip
            differ in length by more than a few frames.
    """

    def __init__(
        self, index: Index, name: str, streams: Mapping[str, Stream], missing: Literal["error", "skip"] = "error"
    ) -> None:
        self.index, self.name, self.root = index, name, index.root
        self.inputs = projector_inputs(streams)
        limits = {name: self._joined_lengths(group) for name, group in self.inputs.items() if group.is_joined}
        self.streams = [
            FeatureStream(index, stream, config, limits.get(config.join or stream))
            for stream, config in streams.items()
        ]
        self.has_features = np.ones(len(self.index), bool)
        for stream in self.streams:
            self.has_features &= stream.frame_counts > 0
        self.annotated = Clips(self.index, np.arange(len(self.index)))
        self.clips = Clips(self.index, np.flatnonzero(self.has_features))
        if len(self.clips) < len(self.annotated):
            self._report_missing(missing)

    def _joined_lengths(self, group: ProjectorInput) -> np.ndarray:
        """The length of each clip in the joined streams `group`, after `stride`, int64 (clips,); 0 without features.

        Clips whose streams differ by a few frames are counted and named.

        Raises:
            UserError: streams of a clip differ by more.
        """
        lengths = {
            name: -(-self.index.frame_counts(name).astype(np.int64) // stream.stride)
            for name, stream in group.streams.items()
        }
        columns = np.stack(list(lengths.values()))  # (streams, clips)
        shortest = columns.min(0)  # (clips,)
        cut = np.where(shortest > 0, columns.max(0) - shortest, 0)
        if cut.any():
            row = int(cut.argmax())
            worst = {name: int(lengths[name][row]) for name in lengths}
            cut_to_shortest(worst, f"Split {self.name} of {self.root}, clip {self.index.id(row)}")
            info(
                f"split {self.name}: join {group.name} cuts {np.count_nonzero(cut)} of {len(cut)} clips to the "
                f"shortest of {', '.join(lengths)}, by at most {format_count(int(cut.max()), 'frame')} "
                f"({self.index.id(row)})"
            )
        return shortest

    def _report_missing(self, missing: str) -> None:
        rows = np.flatnonzero(~self.has_features)
        examples = [f"{self.index.id(row)} in {self.missing_streams(row)}" for row in rows[: MAX_NAMES + 1].tolist()]
        report = (
            f"Split {self.name} of {self.root}: {len(rows)} of {len(self.annotated)} clips have no features "
            f"({summarize_names(examples, len(rows))})"
        )
        if missing == "error" or not self.clips:
            raise UserError(f"{report}; pack the missing features, or set data.missing=skip.")
        warning(
            f"{report}; with data.missing=skip training skips them, and generation gives them an empty hypothesis; "
            "otherwise both stop."
        )

    def count_embeddings(self) -> dict[str, np.ndarray]:
        """Name of a projector's input -> the embeddings of each clip in a sequence, without boundary vectors.

        int64 (clips,); 0 without features. No frame is read.
        """
        num_frames = {stream.name: stream.kept_frame_counts() for stream in self.streams}
        return {
            name: group.count_embeddings(num_frames[next(iter(group.streams))]) for name, group in self.inputs.items()
        }

    @property
    def layouts(self) -> dict[str, str]:
        """Stream -> its layout, the name of what its numbers are, if known."""
        return {stream.name: stream.layout for stream in self.streams if stream.layout}

    def missing_streams(self, row: int) -> str | None:
        """The names of the streams without frames of the clip in `row`, or None."""
        return ", ".join(stream.name for stream in self.streams if not stream.frame_counts[row]) or None

    def context_rows(self, clip: Clip, window: int, prelude: int) -> list[int]:
        """The rows of the context sentences of `clip`, in signing order."""
        first = clip.row - clip.position
        return [first + position for position in context_indices(clip.position, window, prelude)]

    def gold_context(self, clip: Clip, window: int, prelude: int) -> list[str]:
        """The reference sentences in the context of `clip`."""
        return [self.index.translation(row) for row in self.context_rows(clip, window, prelude)]

    def read(self, clip: Clip) -> dict[str, np.ndarray]:
        """The frames of `clip`: stream name -> float16 array (T, width); T is equal in joined streams only."""
        return {stream.name: stream.read(clip) for stream in self.streams}

    def read_all(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """The frames of `clips`, in their order; each stream is read in the order of the disk."""
        frames: list[dict[str, np.ndarray]] = [{} for _ in clips]
        for stream in self.streams:
            for index in stream.reading_order(clips):
                frames[index][stream.name] = stream.read(clips[index])
        return frames

    def fingerprint(self) -> str:
        """SHA-256 of the annotation and metadata files, and of names, sizes and samples of the shards."""
        return self.index.fingerprint([stream.name for stream in self.streams])
