"""MediaPipe Holistic keypoints, from JSON or `.pose` files, as 208 numbers a frame: 104 points (x, y), normalized by
the shoulders.

The 37 face points are those of the YouTube-ASL paper (Uthus et al. 2023, "YouTube-ASL: A Large-Scale, Open-Domain
American Sign Language-English Parallel Corpus").
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import require_extra, summarize_names

FACE_MESH_POINTS = (
    *(0, 4, 13, 14, 17, 33, 37, 39, 46, 52, 55, 61, 64, 81, 82, 93, 133, 151, 152, 159, 172, 178, 181, 263, 269, 276),
    *(282, 285, 291, 294, 311, 323, 362, 386, 397, 468, 473),
)
IRISES = (468, 473)  # which the mesh of 468 points lacks
BODY, RIGHT_HAND, LEFT_HAND, FACE = "pose_landmarks", "right_hand_landmarks", "left_hand_landmarks", "face_landmarks"
# part -> how many points a tool may give -> which of them are kept, in this order
POINT_SUBSETS: dict[str, dict[int, tuple[int, ...]]] = {
    BODY: {33: tuple(range(25)), 25: tuple(range(25))},
    RIGHT_HAND: {21: tuple(range(21))},
    LEFT_HAND: {21: tuple(range(21))},
    FACE: {37: tuple(range(37)), 468: FACE_MESH_POINTS, 478: FACE_MESH_POINTS},
}
NUM_POINTS = {BODY: 25, RIGHT_HAND: 21, LEFT_HAND: 21, FACE: 37}
TOTAL_POINTS = sum(NUM_POINTS.values())
POINT_OFFSETS = dict(zip(NUM_POINTS, np.cumsum([0, *NUM_POINTS.values()]).tolist(), strict=False))
SHOULDERS = [11, 12]

LAYOUT_DESCRIPTION = "mediapipe-104-shoulders"
LAYOUT_POINTS = (
    "MediaPipe Holistic, 104 points (x, y), point by point: body 0-24, right hand 0-20, left hand 0-20, "
    f"face mesh {' '.join(map(str, FACE_MESH_POINTS))}"
)
NORMALIZATION_DESCRIPTION = (
    "pixel = value * scale + center, both attributes of each clip: the mean midpoint of the shoulders and their mean "
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
        return cls(np.zeros((frames, TOTAL_POINTS, 2)), np.zeros((frames, TOTAL_POINTS), bool))


@dataclass(frozen=True)
class Normalization:
    """How pixels became features: value = (pixel - `center` (x, y)) / `scale`."""

    center: np.ndarray
    scale: float


def select_points(part: str, count: int) -> tuple[int, ...]:
    """Which of the `count` points of `part` are kept.

    Raises:
        Unreadable: no MediaPipe model gives that many.
    """
    known: Mapping[int, tuple[int, ...]] = POINT_SUBSETS[part]
    if count not in known:
        raise UnreadableClip(f"{part} of {count} points; known are {' and '.join(map(str, known))}")
    return known[count]


def normalize_landmarks(landmarks: Landmarks) -> tuple[np.ndarray, Normalization]:
    """The features of a clip, float64 of shape (T, 208), and what brings its pixels back.

    Raises:
        Unreadable: no frame shows both shoulders, or they are less than a pixel apart.
    """
    both = landmarks.seen[:, SHOULDERS].all(axis=1)
    if not both.any():
        raise UnreadableClip("no frame shows both shoulders")
    shoulders = landmarks.xy[both][:, SHOULDERS]
    center = shoulders.mean(axis=(0, 1))
    scale = float(np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=1).mean())
    if scale < 1:
        raise UnreadableClip(f"the shoulders are {scale:.3g} apart: fractions of a picture in place of pixels?")
    values = np.where(landmarks.seen[..., None], (landmarks.xy - center) / scale, 0.0)
    return values.reshape(len(values), 2 * TOTAL_POINTS), Normalization(center, scale)


def read_mediapipe_json(file: Path) -> Landmarks:
    """The landmarks in `file`. A part or a point that is null or empty is missing.

    Raises:
        Unreadable: it is no such JSON, or a part has a number of points that MediaPipe does not give.
    """
    frames = _read_frames(file)
    landmarks = Landmarks.unseen(len(frames))
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict | None):
            raise UnreadableClip(f"frame {number} is no object of landmarks")
        for part in NUM_POINTS:
            points = (frame or {}).get(part) or []
            if not isinstance(points, list):
                raise UnreadableClip(f"frame {number}: {part} is no list of points")
            if not points:
                continue
            for index, chosen in enumerate(select_points(part, len(points)), start=POINT_OFFSETS[part]):
                if chosen < len(points) and points[chosen]:
                    landmarks.xy[number, index] = _parse_point(points[chosen], f"frame {number}, {part} {chosen}")
                    landmarks.seen[number, index] = True
    return landmarks


def _read_frames(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_bytes(), parse_constant=_reject_constant)
    except OSError as error:
        raise UnreadableClip(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableClip(f"is no JSON: {error}") from None
    frames = content.get("keypoints") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise UnreadableClip("holds no list `keypoints`")
    if not frames:
        raise UnreadableClip("has no frames")
    return frames


def _reject_constant(constant: str) -> float:
    raise ValueError(f"{constant} in place of a number")


def _parse_point(point: Any, where: str) -> tuple[float, float]:
    pair = (point.get("x"), point.get("y")) if isinstance(point, dict) else point
    if (
        not isinstance(pair, list | tuple)
        or len(pair) < 2
        or not all(type(value) in (int, float) for value in pair[:2])
    ):
        raise UnreadableClip(f"{where} is no point (x, y)")
    try:
        return float(pair[0]), float(pair[1])
    except OverflowError:
        raise UnreadableClip(f"{where} is no point (x, y)") from None


# what pose-format raises on damaged files
_POSE_READ_ERRORS = (OSError, ValueError, TypeError, IndexError, struct.error, NotImplementedError, MemoryError)

POSE_COMPONENTS = {
    BODY: "POSE_LANDMARKS",
    RIGHT_HAND: "RIGHT_HAND_LANDMARKS",
    LEFT_HAND: "LEFT_HAND_LANDMARKS",
    FACE: "FACE_LANDMARKS",
}

# The names of the kept points: members of MediaPipe's PoseLandmark and HandLandmark, indices of its face mesh.
_BODY_NAMES = (
    *("NOSE", "LEFT_EYE_INNER", "LEFT_EYE", "LEFT_EYE_OUTER", "RIGHT_EYE_INNER", "RIGHT_EYE", "RIGHT_EYE_OUTER"),
    *("LEFT_EAR", "RIGHT_EAR", "MOUTH_LEFT", "MOUTH_RIGHT", "LEFT_SHOULDER", "RIGHT_SHOULDER", "LEFT_ELBOW"),
    *("RIGHT_ELBOW", "LEFT_WRIST", "RIGHT_WRIST", "LEFT_PINKY", "RIGHT_PINKY", "LEFT_INDEX", "RIGHT_INDEX"),
    *("LEFT_THUMB", "RIGHT_THUMB", "LEFT_HIP", "RIGHT_HIP"),
)
_FINGERS = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
_HAND_NAMES = (
    *("WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"),
    *(f"{finger}_{joint}" for finger in _FINGERS for joint in ("MCP", "PIP", "DIP", "TIP")),
)
NAMES_OF = {
    BODY: _BODY_NAMES,
    RIGHT_HAND: _HAND_NAMES,
    LEFT_HAND: _HAND_NAMES,
    FACE: tuple(map(str, FACE_MESH_POINTS)),
}


def require_pose_format() -> None:
    """Raises UserError if the package that reads `.pose` files is not installed."""
    require_extra("pose", "Reading .pose files", "pose_format")


def read_pose_file(file: Path) -> Landmarks:
    """The landmarks of the first person in `file`; a point of confidence 0, or a masked one, is missing.

    Raises:
        Unreadable: it is damaged, shows nobody, or lacks components or points of MediaPipe that are kept.
    """
    from pose_format import Pose

    try:
        pose = Pose.read(file.read_bytes())
    except _POSE_READ_ERRORS as error:
        raise UnreadableClip(f"cannot be read as .pose: {error}") from None
    columns_of = _columns(pose.header.components)
    frames, people = pose.body.data.shape[:2]
    if not frames or not people:
        raise UnreadableClip("has no frames" if not frames else "shows nobody")
    xy = np.ma.getdata(pose.body.data)[:, 0, :, :2]
    hidden = np.ma.getmaskarray(pose.body.data)[:, 0, :, :2].any(axis=-1)
    seen = ~hidden & (np.asarray(pose.body.confidence)[:, 0] > 0)
    landmarks = Landmarks.unseen(frames)
    for part, columns in columns_of.items():
        for index, column in enumerate(columns, start=POINT_OFFSETS[part]):
            if column is not None:
                landmarks.xy[:, index] = xy[:, column]
                landmarks.seen[:, index] = seen[:, column]
    return landmarks


def _columns(components: list) -> dict[str, list[int | None]]:
    """For each part, where in a frame of the file each kept point stands; None for an iris that is not there."""
    counts = [len(component.points) for component in components]
    starts = dict(zip((component.name for component in components), np.cumsum([0, *counts]).tolist(), strict=False))
    points_of = {component.name: list(component.points) for component in components}
    if lacking := [name for name in POSE_COMPONENTS.values() if name not in points_of]:
        held = ", ".join(points_of)
        raise UnreadableClip(f"holds {held}, no {' and no '.join(lacking)}: only MediaPipe Holistic is known")
    indices = {part: _places(part, points_of[component]) for part, component in POSE_COMPONENTS.items()}
    absent = {
        POSE_COMPONENTS[part]: [name for name, index in zip(NAMES_OF[part], its, strict=True) if index is None]
        for part, its in indices.items()
    }
    if lacks := [
        f"{component} lacks {summarize_names(needed)}"
        for component, names in absent.items()
        if (needed := [name for name in names if component != POSE_COMPONENTS[FACE] or int(name) not in IRISES])
    ]:
        raise UnreadableClip(
            f"{'; '.join(lacks)}: the file is reduced, and these points are needed; extract it whole"
        )
    return {
        part: [None if index is None else starts[POSE_COMPONENTS[part]] + index for index in its]
        for part, its in indices.items()
    }


def _places(part: str, names: list[str]) -> list[int | None]:
    """Where among the `names` of a component each kept point of `part` stands: by its name, or by its index."""
    count = len(names)
    if names == [str(number) for number in range(count)] and count in POINT_SUBSETS[part]:
        return [chosen if chosen < count else None for chosen in select_points(part, count)]
    place_of = {name: index for index, name in enumerate(names)}
    return [place_of.get(name) for name in NAMES_OF[part]]
