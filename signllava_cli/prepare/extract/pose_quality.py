"""How well the landmarks of a clip were found: shares of frames, gaps, and jumps to somebody else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from signllava_cli.data.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND, SHOULDERS
from signllava_cli.prepare.extract.landmarks import FrameLandmarks

HANDS = ("left_hand", "right_hand")
NAMES = {BODY: "body", LEFT_HAND: "left_hand", RIGHT_HAND: "right_hand", FACE: "face"}
JUMP = 0.5  # shoulder widths that the center of the shoulders moves from one frame to the next


@dataclass(frozen=True)
class PoseQuality:
    """Counts over the frames of a clip.

    `found`: part -> frames with it. `longest_gap`: part -> the longest run of frames without it. `jumps`: how often
    the center of the shoulders jumped by half a shoulder width or more. `people_checks`, `people_many`: in how many
    frames people were counted, and in how many of these there were several. `rotation`: degrees that frames were
    turned. `pixels`: width and height of the upright frames.
    """

    frames: int
    fps: float
    found: dict[str, int]
    longest_gap: dict[str, int]
    jumps: int
    people_checks: int
    people_many: int
    rotation: int
    pixels: tuple[int, int]

    def share(self, part: str) -> float:
        """The share of frames in which `part` (`body`, `left_hand`, `right_hand`, `face`) was found."""
        return self.found[part] / self.frames

    @property
    def has_other_people(self) -> bool:
        """Whether several people were seen in at least a tenth of the frames in which they were counted."""
        return self.people_many > 0 and self.people_many >= self.people_checks / 10

    def to_json(self) -> dict[str, object]:
        """For a report."""
        return {**asdict(self), "pixels": list(self.pixels)}

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "PoseQuality":
        """The inverse of `to_json`."""
        return cls(**{**content, "pixels": tuple(content["pixels"])})  # type: ignore[arg-type]


def measure_quality(frames: Sequence[FrameLandmarks], rotation: int) -> PoseQuality:
    """The quality of the landmarks of one clip."""
    present = {name: np.array([part in frame.parts for frame in frames]) for part, name in NAMES.items()}
    people = [frame.people for frame in frames if frame.people is not None]
    seconds = frames[-1].time - frames[0].time
    return PoseQuality(
        frames=len(frames),
        fps=round((len(frames) - 1) / seconds, 3) if seconds > 0 else 0.0,
        found={name: int(values.sum()) for name, values in present.items()},
        longest_gap={name: _longest_gap(values) for name, values in present.items()},
        jumps=_count_jumps(frames),
        people_checks=len(people),
        people_many=sum(count > 1 for count in people),
        rotation=rotation,
        pixels=frames[0].size,
    )


def _longest_gap(present: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], present, [True]]).astype(int)))
    return int(np.max(edges[1::2] - edges[::2], initial=0))


def _count_jumps(frames: Sequence[FrameLandmarks]) -> int:
    shoulders = np.array([frame.parts[BODY][SHOULDERS] for frame in frames if BODY in frame.parts])  # (frames, 2, 2)
    if len(shoulders) < 2:
        return 0
    width = np.median(np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=1))
    steps = np.linalg.norm(np.diff(shoulders.mean(axis=1), axis=0), axis=1)
    return int((steps > JUMP * width).sum())
