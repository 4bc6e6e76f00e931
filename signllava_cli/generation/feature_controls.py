"""Whether the model looks at the video: the same clips with a stream left out, others' frames, or none."""

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.recipe import Generate


class FrameSource:
    """Reads the frames that clips are shown with: their own, unless `settings` ask for a control.

    `shuffled`: those of another clip, each clip's given to exactly one, a function of `settings.seed`.

    Raises:
        UserError: there is no other clip.
    """

    def __init__(self, split: Split, config: Generate) -> None:
        self.split, self.config = split, config
        self.source = np.arange(len(split.index))
        if config.features == "shuffled":
            rows = np.random.default_rng(config.seed).permutation([clip.row for clip in split.clips])
            if len(rows) < 2:
                raise UserError(f"generate.features=shuffled: split {split.name} has no other clip to show.")
            self.source[rows] = np.roll(rows, 1)  # a circle through all of them: nobody gets its own

    def read_all(self, clips: list[Clip]) -> list[dict[str, np.ndarray]]:
        """For each clip: stream name -> float16 frames (T, width)."""
        read = self.split.read_all([self.split.annotated[int(self.source[clip.row])] for clip in clips])
        shown = [
            {name: frames for name, frames in streams.items() if name not in self.config.ablate} for streams in read
        ]
        if self.config.features == "zero":
            shown = [{name: np.zeros_like(frames) for name, frames in streams.items()} for streams in shown]
        return shown
