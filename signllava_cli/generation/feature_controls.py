"""Controls that test whether the model uses the video: another clip's frames, zeros, or one stream fewer."""

from collections.abc import Sequence

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.recipe import Generate


class FrameSource:
    """Reads the frames that the model sees for a clip: its own, unless `config` sets a control.

    `shuffled` shows the frames of another clip: every clip's frames are shown for exactly one other clip, by a
    permutation that is a function of `config.seed`.

    Raises:
        UserError: `shuffled` in a split with one clip.
    """

    def __init__(self, split: Split, config: Generate) -> None:
        self.split, self.config = split, config
        self.source_rows = np.arange(len(split.index))  # row of a clip -> row of the clip whose frames it shows
        if config.features == "shuffled":
            rows = np.random.default_rng(config.seed).permutation([clip.row for clip in split.clips])
            if len(rows) < 2:
                raise UserError(
                    f"generate.features=shuffled: split {split.name} has one clip alone; choose a larger split."
                )
            self.source_rows[rows] = np.roll(rows, 1)  # one cycle through all clips: no clip keeps its own frames

    def read_all(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """For each clip: stream name -> float16 frames (T, width)."""
        sources = [self.split.annotated[int(self.source_rows[clip.row])] for clip in clips]
        frames_by_clip = [
            {name: frames for name, frames in streams.items() if name not in self.config.ablate}
            for streams in self.split.read_all(sources)
        ]
        if self.config.features == "zero":
            return [{name: np.zeros_like(frames) for name, frames in streams.items()} for streams in frames_by_clip]
        return frames_by_clip
