"""The 208 numbers of the pose streams that Sign_LLaVA was trained on: other face points, another normalization.

Formulas and points: JSALT2024/PoseEstimation, data/h2s.py and data/normalization.py.
"""

import numpy as np

from signllava_cli.data.keypoints import (
    BODY,
    FACE,
    LEFT_HAND,
    NUM_POINTS,
    POINT_OFFSETS,
    RIGHT_HAND,
    SHOULDERS,
    Landmarks,
)

SIGN_LLAVA = "sign-llava"  # the name of this layout
SIGN_LLAVA_FACE_POINTS = (
    *(0, 4, 13, 14, 17, 33, 39, 46, 52, 55, 61, 64, 81, 93, 133, 151, 152, 159, 172, 178, 181, 263, 269, 276),
    *(282, 285, 291, 294, 311, 323, 362, 386, 397, 402, 405, 468, 473),
)
SIGN_SPACE = 1.5  # shoulder widths that become 1
BOX_PADDING = 0.2  # on each side of a box, in its larger side


def normalize_as_sign_llava(landmarks: Landmarks) -> np.ndarray:
    """The features of a clip in the layout of Sign_LLaVA, float64 (T, 208).

    The body of each frame is centered between its shoulders and divided by 1.5 times their distance. Each hand and
    the face are fitted into a square box of their own, from -1 to 1. Points of a missing hand or face are -1, those
    of a missing body 0.

    Args:
        landmarks: with the face points `SIGN_LLAVA_FACE_POINTS`.
    """
    parts = {part: landmarks.xy[:, start : start + NUM_POINTS[part]] for part, start in POINT_OFFSETS.items()}
    values = [_by_shoulders(parts[BODY]), *(_in_box(parts[part]) for part in (RIGHT_HAND, LEFT_HAND, FACE))]
    return np.concatenate(values, axis=1).reshape(len(landmarks.xy), -1)


def _by_shoulders(points: np.ndarray) -> np.ndarray:
    """`points`, float64 (T, 25, 2) in pixels, relative to the shoulders of each frame."""
    shoulders = points[:, SHOULDERS]  # (T, 2, 2)
    width = np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=1)[:, None, None]
    return _divide(points - shoulders.mean(axis=1, keepdims=True), SIGN_SPACE * width)


def _in_box(points: np.ndarray) -> np.ndarray:
    """`points`, float64 (T, points, 2) in pixels, from -1 to 1 in the padded square box of each frame.

    The shorter side is padded to the longer one by whole pixels, as in the original.
    """
    corner = points.min(axis=1, keepdims=True)
    sides = points.max(axis=1, keepdims=True) - corner  # (T, 1, 2)
    side = sides.max(axis=2, keepdims=True)
    shifted = points - corner + np.floor((side - sides) / 2) + BOX_PADDING * side
    return _divide(shifted, (1 + 2 * BOX_PADDING) * side) * 2 - 1


def _divide(values: np.ndarray, divisors: np.ndarray) -> np.ndarray:
    """`values / divisors`, 0 where a divisor is 0."""
    return np.divide(values, divisors, out=np.zeros_like(values), where=divisors != 0)
