"""`.pose` files with MediaPipe Holistic components, through the package pose-format."""

import struct
from pathlib import Path

import numpy as np

from signllava_cli.data.packing.clip_file import Unreadable
from signllava_cli.data.packing.landmarks import (
    BODY,
    FACE,
    FACE_MESH_POINTS,
    IRISES,
    KEPT_POINTS,
    LEFT_HAND,
    RIGHT_HAND,
    START_OF,
    Landmarks,
    kept_points,
)
from signllava_cli.errors import first_names, require_extra

# what pose-format raises on damaged files
_READ_FAULTS = (OSError, ValueError, TypeError, IndexError, struct.error, NotImplementedError, MemoryError)

COMPONENT_OF = {
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
    except _READ_FAULTS as fault:
        raise Unreadable(f"cannot be read as .pose: {fault}") from None
    columns_of = _columns(pose.header.components)
    frames, people = pose.body.data.shape[:2]
    if not frames or not people:
        raise Unreadable("has no frames" if not frames else "shows nobody")
    xy = np.ma.getdata(pose.body.data)[:, 0, :, :2]
    hidden = np.ma.getmaskarray(pose.body.data)[:, 0, :, :2].any(axis=-1)
    seen = ~hidden & (np.asarray(pose.body.confidence)[:, 0] > 0)
    landmarks = Landmarks.unseen(frames)
    for part, columns in columns_of.items():
        for place, column in enumerate(columns, start=START_OF[part]):
            if column is not None:
                landmarks.xy[:, place] = xy[:, column]
                landmarks.seen[:, place] = seen[:, column]
    return landmarks


def _columns(components: list) -> dict[str, list[int | None]]:
    """For each part, where in a frame of the file each kept point stands; None for an iris that is not there."""
    counts = [len(component.points) for component in components]
    starts = dict(zip((component.name for component in components), np.cumsum([0, *counts]).tolist(), strict=False))
    points_of = {component.name: list(component.points) for component in components}
    if lacking := [name for name in COMPONENT_OF.values() if name not in points_of]:
        held = ", ".join(points_of)
        raise Unreadable(f"holds {held}, no {' and no '.join(lacking)}: only MediaPipe Holistic is known")
    places = {part: _places(part, points_of[component]) for part, component in COMPONENT_OF.items()}
    absent = {
        COMPONENT_OF[part]: [name for name, place in zip(NAMES_OF[part], its, strict=True) if place is None]
        for part, its in places.items()
    }
    if lacks := [
        f"{component} lacks {first_names(needed)}"
        for component, names in absent.items()
        if (needed := [name for name in names if component != COMPONENT_OF[FACE] or int(name) not in IRISES])
    ]:
        raise Unreadable(f"{'; '.join(lacks)}: the file is reduced, and these points are needed; extract it whole")
    return {
        part: [None if place is None else starts[COMPONENT_OF[part]] + place for place in its]
        for part, its in places.items()
    }


def _places(part: str, names: list[str]) -> list[int | None]:
    """Where among the `names` of a component each kept point of `part` stands: by its name, or by its index."""
    count = len(names)
    if names == [str(number) for number in range(count)] and count in KEPT_POINTS[part]:
        return [chosen if chosen < count else None for chosen in kept_points(part, count)]
    place_of = {name: place for place, name in enumerate(names)}
    return [place_of.get(name) for name in NAMES_OF[part]]
