"""MediaPipe Holistic keypoints as 208 numbers a frame: 104 points (x, y), normalised by the shoulders.

The 37 face points are those of the YouTube-ASL paper (Uthus et al. 2023, "YouTube-ASL: A Large-Scale, Open-Domain
American Sign Language-English Parallel Corpus").
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.packing.clip_file import Unreadable

FACE_MESH_POINTS = (
    *(0, 4, 13, 14, 17, 33, 37, 39, 46, 52, 55, 61, 64, 81, 82, 93, 133, 151, 152, 159, 172, 178, 181, 263, 269, 276),
    *(282, 285, 291, 294, 311, 323, 362, 386, 397, 468, 473),
)
IRISES = (468, 473)  # which the mesh of 468 points lacks
BODY, RIGHT_HAND, LEFT_HAND, FACE = "pose_landmarks", "right_hand_landmarks", "left_hand_landmarks", "face_landmarks"
# part -> how many points a tool may give -> which of them are kept, in this order
KEPT_POINTS: dict[str, dict[int, tuple[int, ...]]] = {
    BODY: {33: tuple(range(25)), 25: tuple(range(25))},
    RIGHT_HAND: {21: tuple(range(21))},
    LEFT_HAND: {21: tuple(range(21))},
    FACE: {37: tuple(range(37)), 468: FACE_MESH_POINTS, 478: FACE_MESH_POINTS},
}
POINTS_OF = {BODY: 25, RIGHT_HAND: 21, LEFT_HAND: 21, FACE: 37}
POINTS = sum(POINTS_OF.values())
START_OF = dict(zip(POINTS_OF, np.cumsum([0, *POINTS_OF.values()]).tolist(), strict=False))
SHOULDERS = [11, 12]

LAYOUT = "mediapipe-104-shoulders"
LAYOUT_POINTS = (
    "MediaPipe Holistic, 104 points (x, y), point by point: body 0-24, right hand 0-20, left hand 0-20, "
    f"face mesh {' '.join(map(str, FACE_MESH_POINTS))}"
)
NORMALISATION = (
    "pixel = value * scale + centre, both attributes of each clip: the mean midpoint of the shoulders and their mean "
    "distance; a missing point is 0 0"
)


@dataclass(frozen=True)
class Landmarks:
    """A clip's points: `xy` (T, 104, 2) float64 in pixels; `seen` (T, 104) bool, False where a point is missing."""

    xy: np.ndarray
    seen: np.ndarray

    @classmethod
    def unseen(cls, frames: int) -> "Landmarks":
        """`frames` in which nothing is seen yet."""
        return cls(np.zeros((frames, POINTS, 2)), np.zeros((frames, POINTS), bool))


@dataclass(frozen=True)
class Normalisation:
    """How pixels became features: value = (pixel - `centre` (x, y)) / `scale`."""

    centre: np.ndarray
    scale: float


def kept_points(part: str, count: int) -> tuple[int, ...]:
    """Which of the `count` points of `part` are kept.

    Raises:
        Unreadable: no MediaPipe model gives that many.
    """
    known: Mapping[int, tuple[int, ...]] = KEPT_POINTS[part]
    if count not in known:
        raise Unreadable(f"{part} of {count} points; known are {' and '.join(map(str, known))}")
    return known[count]


def normalise(landmarks: Landmarks) -> tuple[np.ndarray, Normalisation]:
    """The features of a clip, float64 of shape (T, 208), and what brings its pixels back.

    Raises:
        Unreadable: no frame shows both shoulders, or they are less than a pixel apart.
    """
    both = landmarks.seen[:, SHOULDERS].all(axis=1)
    if not both.any():
        raise Unreadable("no frame shows both shoulders")
    shoulders = landmarks.xy[both][:, SHOULDERS]
    centre = shoulders.mean(axis=(0, 1))
    scale = float(np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=1).mean())
    if scale < 1:
        raise Unreadable(f"the shoulders are {scale:.3g} apart: fractions of a picture in place of pixels?")
    values = np.where(landmarks.seen[..., None], (landmarks.xy - centre) / scale, 0.0)
    return values.reshape(len(values), 2 * POINTS), Normalisation(centre, scale)
