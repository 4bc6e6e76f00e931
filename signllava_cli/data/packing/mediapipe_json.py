"""Keypoint JSON as in YouTube-ASL releases: `{"keypoints": [frame, ...]}`, points in pixels."""

import json
from pathlib import Path
from typing import Any

from signllava_cli.data.packing.clip_file import Unreadable
from signllava_cli.data.packing.landmarks import POINTS_OF, START_OF, Landmarks, kept_points


def read_mediapipe_json(file: Path) -> Landmarks:
    """The landmarks in `file`. A part or a point that is null or empty is missing.

    Raises:
        Unreadable: it is no such JSON, or a part has a number of points that MediaPipe does not give.
    """
    frames = _frames(file)
    landmarks = Landmarks.unseen(len(frames))
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict | None):
            raise Unreadable(f"frame {number} is no object of landmarks")
        for part in POINTS_OF:
            points = (frame or {}).get(part) or []
            if not isinstance(points, list):
                raise Unreadable(f"frame {number}: {part} is no list of points")
            if not points:
                continue
            for place, chosen in enumerate(kept_points(part, len(points)), start=START_OF[part]):
                if chosen < len(points) and points[chosen]:
                    landmarks.xy[number, place] = _xy(points[chosen], f"frame {number}, {part} {chosen}")
                    landmarks.seen[number, place] = True
    return landmarks


def _frames(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_bytes(), parse_constant=_refuse)
    except OSError as fault:
        raise Unreadable(f"cannot be read: {fault.strerror}") from None
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"is no JSON: {fault}") from None
    frames = content.get("keypoints") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise Unreadable("holds no list `keypoints`")
    if not frames:
        raise Unreadable("has no frames")
    return frames


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} in place of a number")


def _xy(point: Any, where: str) -> tuple[float, float]:
    pair = (point.get("x"), point.get("y")) if isinstance(point, dict) else point
    if (
        not isinstance(pair, list | tuple)
        or len(pair) < 2
        or not all(type(value) in (int, float) for value in pair[:2])
    ):
        raise Unreadable(f"{where} is no point (x, y)")
    try:
        return float(pair[0]), float(pair[1])
    except OverflowError:
        raise Unreadable(f"{where} is no point (x, y)") from None
