"""One clip's features as they are stored: float16 of shape (T, D), every one a number."""

from dataclasses import dataclass

import numpy as np

from signllava_cli.data.packing.arrays import read_array
from signllava_cli.data.packing.clip_file import ClipFile, Unreadable
from signllava_cli.data.packing.landmarks import LAYOUT, Normalisation, normalise
from signllava_cli.data.packing.mediapipe_json import read_mediapipe_json
from signllava_cli.data.packing.open_hdf5 import OpenHdf5
from signllava_cli.data.packing.pose_file import read_pose_file
from signllava_cli.data.shard import read_layout


@dataclass(frozen=True)
class ClipFeatures:
    """`frames`, float16 of shape (T, D); `normalisation` for keypoints, else None.

    `layout` names what the numbers are, where the source tells it.
    """

    frames: np.ndarray
    normalisation: Normalisation | None = None
    layout: str | None = None


def read_features(source: ClipFile, handles: OpenHdf5) -> ClipFeatures:
    """The features that `source` holds.

    Raises:
        Unreadable: the file is damaged, or its array is not (T >= 1, D) of numbers that float16 can hold.
    """
    match source.format:
        case "mediapipe":
            values, normalisation = normalise(read_mediapipe_json(source.file))
        case "pose":
            values, normalisation = normalise(read_pose_file(source.file))
        case _:
            frames = _stored(read_array(source, handles))
            layout = read_layout(handles.open(source.file)) if source.format == "hdf5" else None
            return ClipFeatures(frames, layout=layout)
    return ClipFeatures(_stored(values), normalisation, LAYOUT)


def _stored(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise Unreadable(f"{values.dtype} in place of numbers")
    if values.ndim != 2 or not values.shape[1]:
        raise Unreadable(f"shape {values.shape} in place of (frames, width)")
    if not len(values):
        raise Unreadable("has no frames")
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        frame, column = np.argwhere(~np.isfinite(stored))[0]
        raise Unreadable(f"{values[frame, column]} at frame {frame}, which is no number that float16 can hold")
    return stored
