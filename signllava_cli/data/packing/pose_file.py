"""`.pose` files with MediaPipe Holistic components, through the package pose-format."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from signllava_cli.data.packing.clip_file import Unreadable
from signllava_cli.data.packing.landmarks import (
    BODY,
    FACE,
    LEFT_HAND,
    RIGHT_HAND,
    START_OF,
    Landmarks,
    kept_points,
)
from signllava_cli.errors import UserError

# what pose-format raises on damaged files
_READ_FAULTS = (OSError, ValueError, TypeError, IndexError, struct.error, NotImplementedError, MemoryError)

COMPONENT_OF = {
    BODY: "POSE_LANDMARKS",
    RIGHT_HAND: "RIGHT_HAND_LANDMARKS",
    LEFT_HAND: "LEFT_HAND_LANDMARKS",
    FACE: "FACE_LANDMARKS",
}


def require_pose_format() -> None:
    """Raises UserError if the package that reads `.pose` files is not installed."""
    if find_spec("pose_format") is None:
        raise UserError('.pose files are read by the package pose-format: pip install "signllava[pose]".')


def read_pose_file(file: Path) -> Landmarks:
    """The landmarks of the first person in `file`; a point of confidence 0, or a masked one, is missing.

    Raises:
        Unreadable: it is damaged, shows nobody, or holds other components than MediaPipe's.
    """
    from pose_format import Pose

    try:
        pose = Pose.read(file.read_bytes())
    except _READ_FAULTS as fault:
        raise Unreadable(f"cannot be read as .pose: {fault}") from None
    starts, counts = _components(pose.header.components)
    frames, people = pose.body.data.shape[:2]
    if not frames or not people:
        raise Unreadable("has no frames" if not frames else "shows nobody")
    xy = np.ma.getdata(pose.body.data)[:, 0, :, :2]
    hidden = np.ma.getmaskarray(pose.body.data)[:, 0, :, :2].any(axis=-1)
    seen = ~hidden & (np.asarray(pose.body.confidence)[:, 0] > 0)
    landmarks = Landmarks.unseen(frames)
    for part, component in COMPONENT_OF.items():
        for place, chosen in enumerate(kept_points(part, counts[component]), start=START_OF[part]):
            if chosen < counts[component]:
                landmarks.xy[:, place] = xy[:, starts[component] + chosen]
                landmarks.seen[:, place] = seen[:, starts[component] + chosen]
    return landmarks


def _components(components: list) -> tuple[dict[str, int], dict[str, int]]:
    """The first point and the number of points of each component."""
    counts = {component.name: len(component.points) for component in components}
    if lacking := [name for name in COMPONENT_OF.values() if name not in counts]:
        raise Unreadable(f"holds {', '.join(counts)}, no {lacking[0]}: only MediaPipe Holistic is known")
    starts = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    return starts, counts
