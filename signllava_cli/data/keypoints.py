"""Reads MediaPipe Holistic keypoints from JSON and `.pose` files as 104 points (x, y), 208 numbers per frame.

The coordinates are normalized by the shoulders.

The 37 face points are those of the YouTube-ASL paper (Uthus et al. 2023, "YouTube-ASL: A Large-Scale, Open-Domain
American Sign Language-English Parallel Corpus").
"""

import json
import struct
from collections.abc import Mapping, Sequence
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
IRISES = (468, 473)  # missing in a mesh of 468 points
BODY, RIGHT_HAND, LEFT_HAND, FACE = "pose_landmarks", "right_hand_landmarks", "left_hand_landmarks", "face_landmarks"
# part -> number of points in the file -> indices of the kept points, in order
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
    "pixel = value * scale + center, both attributes of each clip: center is the mean midpoint of the shoulders, "
    "scale their mean distance; a missing point is 0 0"
)


@dataclass(frozen=True)
class Landmarks:
    """A clip's points: `xy` (T, 104, 2) float64, in pixels; `is_visible` (T, 104) bool, False for a missing point."""

    xy: np.ndarray
    is_visible: np.ndarray

    @classmethod
    def empty(cls, frames: int) -> "Landmarks":
        """`frames` frames in which every point is missing."""
        return cls(np.zeros((frames, TOTAL_POINTS, 2)), np.zeros((frames, TOTAL_POINTS), bool))


@dataclass(frozen=True)
class Normalization:
    """The normalization of a clip: value = (pixel - center) / scale. `center`: float64 (2,), x and y in pixels."""

    center: np.ndarray
    scale: float


def select_points(part: str, count: int) -> tuple[int, ...]:
    """The indices of the kept points among the `count` points of `part`.

    Raises:
        UnreadableClip: no MediaPipe model outputs `count` points.
    """
    subsets: Mapping[int, tuple[int, ...]] = POINT_SUBSETS[part]
    if count not in subsets:
        raise UnreadableClip(f"{part} has {count} points, expected {' or '.join(map(str, subsets))}")
    return subsets[count]


def gather_landmarks(
    frames: Sequence[Mapping[str, np.ndarray]], face_points: Sequence[int] = FACE_MESH_POINTS
) -> Landmarks:
    """The kept points of MediaPipe's complete output.

    Args:
        frames: for each frame, part -> points (33, 21 or 478, at least 2) in pixels; missing parts have no entry.
        face_points: the 37 points of the face that are kept.
    """
    landmarks = Landmarks.empty(len(frames))
    for index, frame in enumerate(frames):
        for part, points in frame.items():
            kept = face_points if part == FACE else select_points(part, len(points))
            columns = slice(POINT_OFFSETS[part], POINT_OFFSETS[part] + NUM_POINTS[part])
            landmarks.xy[index, columns] = points[list(kept), :2]
            landmarks.is_visible[index, columns] = True
    return landmarks


def normalize_landmarks(landmarks: Landmarks) -> tuple[np.ndarray, Normalization]:
    """The features of a clip, float64 (T, 208), and the normalization from which its pixels can be computed.

    Raises:
        UnreadableClip: no frame has both shoulders, or they are less than a pixel apart.
    """
    has_shoulders = landmarks.is_visible[:, SHOULDERS].all(axis=1)
    if not has_shoulders.any():
        raise UnreadableClip("no frame has both shoulders")
    shoulders = landmarks.xy[has_shoulders][:, SHOULDERS]  # (frames, 2, 2)
    center = shoulders.mean(axis=(0, 1))
    scale = float(np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=1).mean())
    if scale < 1:
        raise UnreadableClip(
            f"the shoulders are {scale:.3g} apart; coordinates must be pixels, not fractions of the image"
        )
    values = np.where(landmarks.is_visible[..., None], (landmarks.xy - center) / scale, 0.0)  # (T, 104, 2)
    return values.reshape(len(values), 2 * TOTAL_POINTS), Normalization(center, scale)


def read_mediapipe_json(file: Path) -> Landmarks:
    """The landmarks in `file`. A part or a point that is null or empty is missing.

    Raises:
        UnreadableClip: the JSON is not valid, or a part has a number of points that MediaPipe does not output.
    """
    frames = _read_frames(file)
    landmarks = Landmarks.empty(len(frames))
    for frame_index, frame in enumerate(frames):
        if not isinstance(frame, dict | None):
            raise UnreadableClip(f"frame {frame_index} is not an object of landmarks")
        for part in NUM_POINTS:
            points = (frame or {}).get(part) or []
            if not isinstance(points, list):
                raise UnreadableClip(f"frame {frame_index}: {part} is not a list of points")
            if not points:
                continue
            for index, source_index in enumerate(select_points(part, len(points)), start=POINT_OFFSETS[part]):
                if source_index < len(points) and points[source_index]:
                    landmarks.xy[frame_index, index] = _parse_point(
                        points[source_index], f"frame {frame_index}, {part} {source_index}"
                    )
                    landmarks.is_visible[frame_index, index] = True
    return landmarks


def _read_frames(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_bytes(), parse_constant=_reject_constant)
    except OSError as error:
        raise UnreadableClip(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableClip(f"is not valid JSON: {error}") from None
    frames = content.get("keypoints") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise UnreadableClip("has no list `keypoints`")
    if not frames:
        raise UnreadableClip("has no frames")
    return frames


def _reject_constant(constant: str) -> float:
    raise ValueError(f"{constant}, expected a number")


def _parse_point(point: Any, where: str) -> tuple[float, float]:
    pair = (point.get("x"), point.get("y")) if isinstance(point, dict) else point
    if (
        not isinstance(pair, list | tuple)
        or len(pair) < 2
        or not all(type(value) in (int, float) for value in pair[:2])
    ):
        raise UnreadableClip(f"{where} is not a point (x, y)")
    try:
        return float(pair[0]), float(pair[1])
    except OverflowError:
        raise UnreadableClip(f"{where} is not a point (x, y)") from None


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
POINT_NAMES = {
    BODY: _BODY_NAMES,
    RIGHT_HAND: _HAND_NAMES,
    LEFT_HAND: _HAND_NAMES,
    FACE: tuple(map(str, FACE_MESH_POINTS)),
}


def require_pose_format() -> None:
    """Check that the package that reads `.pose` files is installed.

    Raises:
        UserError: it is not.
    """
    require_extra("pose", "Reading .pose files", "pose_format")


def read_pose_file(file: Path) -> Landmarks:
    """The landmarks of the first person in `file`; a point that is masked or has confidence 0 is missing.

    Raises:
        UnreadableClip: the file is damaged, has no person, or lacks MediaPipe components or points that are kept.
    """
    from pose_format import Pose

    try:
        pose = Pose.read(file.read_bytes())
    except _POSE_READ_ERRORS as error:
        raise UnreadableClip(f"is not a valid .pose file: {error}") from None
    columns_by_part = _point_columns(pose.header.components)
    frames, people = pose.body.data.shape[:2]
    if not frames or not people:
        raise UnreadableClip("has no frames" if not frames else "has no person")
    with np.errstate(invalid="ignore"):  # NaN is found when the features are stored
        xy = np.ma.getdata(pose.body.data)[:, 0, :, :2].astype(np.float64)  # (T, points of the file, 2)
    is_masked = np.ma.getmaskarray(pose.body.data)[:, 0, :, :2].any(axis=-1)
    is_visible = ~is_masked & (np.asarray(pose.body.confidence)[:, 0] > 0)
    landmarks = Landmarks.empty(frames)
    for part, columns in columns_by_part.items():
        for index, column in enumerate(columns, start=POINT_OFFSETS[part]):
            if column is not None:
                landmarks.xy[:, index] = xy[:, column]
                landmarks.is_visible[:, index] = is_visible[:, column]
    return landmarks


def _point_columns(components: list) -> dict[str, list[int | None]]:
    """For each part, the column of each kept point in a frame of the file; None for a missing iris."""
    counts = [len(component.points) for component in components]
    starts = dict(zip((component.name for component in components), np.cumsum([0, *counts]).tolist(), strict=False))
    names_by_component = {component.name: list(component.points) for component in components}
    if missing := [name for name in POSE_COMPONENTS.values() if name not in names_by_component]:
        raise UnreadableClip(
            f"has {', '.join(names_by_component)}, but no {' and no '.join(missing)}; expected MediaPipe Holistic"
        )
    indices_by_part = {
        part: _point_indices(part, names_by_component[component]) for part, component in POSE_COMPONENTS.items()
    }
    errors = []
    for part, indices in indices_by_part.items():
        names = [name for name, index in zip(POINT_NAMES[part], indices, strict=True) if index is None]
        if required := [name for name in names if part != FACE or int(name) not in IRISES]:
            errors.append(f"{POSE_COMPONENTS[part]} lacks {summarize_names(required)}")
    if errors:
        raise UnreadableClip(f"{'; '.join(errors)}: the file is reduced; extract it with all points")
    return {
        part: [None if index is None else starts[POSE_COMPONENTS[part]] + index for index in indices]
        for part, indices in indices_by_part.items()
    }


def _point_indices(part: str, names: list[str]) -> list[int | None]:
    """The index of each kept point of `part` in the `names` of a component, which are point names or indices."""
    count = len(names)
    if names == [str(index) for index in range(count)] and count in POINT_SUBSETS[part]:
        return [index if index < count else None for index in select_points(part, count)]
    index_by_name = {name: index for index, name in enumerate(names)}
    return [index_by_name.get(name) for name in POINT_NAMES[part]]
