"""From the frames of a clip to the features of stream pose, and the boxes that crops are cut by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, to_float16
from signllava_cli.data.keypoints import (
    FACE,
    LAYOUT_DESCRIPTION,
    LEFT_HAND,
    RIGHT_HAND,
    gather_landmarks,
    normalize_landmarks,
)
from signllava_cli.data.sign_llava_pose import SIGN_LLAVA, SIGN_LLAVA_FACE_POINTS, normalize_as_sign_llava
from signllava_cli.prepare.extract.landmarks import FrameLandmarks, LandmarkFinder
from signllava_cli.prepare.extract.pose_quality import PoseQuality, measure_quality
from signllava_cli.prepare.extract.video_cuts import VideoCut, VideoFrame, decode_cut

PoseLayout = Literal["mediapipe", "sign-llava"]
LAYOUT_NAMES = {"mediapipe": LAYOUT_DESCRIPTION, "sign-llava": SIGN_LLAVA}
BOX_PARTS = (FACE, LEFT_HAND, RIGHT_HAND)  # in the order of the vectors of stream dino


@dataclass(frozen=True)
class PoseClip:
    """The landmarks of one clip.

    `frames`: of each frame. `features`: float16 (T, 208). `boxes`: float32 (T, 3, 3), of face, left and right hand
    the center x, y and the side of the square around all their points, in pixels; NaN where they are missing.
    `times`: float64 (T,), seconds in the video.
    """

    frames: list[FrameLandmarks]
    features: ClipFeatures
    boxes: np.ndarray
    times: np.ndarray
    quality: PoseQuality


def extract_pose(
    cut: VideoCut,
    finder: LandmarkFinder,
    layout: PoseLayout = "mediapipe",
    min_body: float = 0.0,
    after_frame: Callable[[], None] = lambda: None,
) -> PoseClip:
    """Decode a cut and find its landmarks.

    Args:
        min_body: the least share of frames with a body.
        after_frame: called after each frame, for progress and limits.

    Raises:
        UnreadableClip: an error of `decode_cut`, no frame has both shoulders, or too few frames have a body.
    """
    with finder:
        return pose_of_frames(decode_cut(cut), finder, layout, min_body, after_frame)


def pose_of_frames(
    video: Iterable[VideoFrame],
    finder: LandmarkFinder,
    layout: PoseLayout = "mediapipe",
    min_body: float = 0.0,
    after_frame: Callable[[], None] = lambda: None,
) -> PoseClip:
    """The landmarks of the frames of one clip; `finder` was entered for it. Arguments and errors: `extract_pose`."""
    found: list[FrameLandmarks] = []
    rotation = 0
    for frame in video:
        rotation = frame.rotation
        found.append(finder.find(frame))
        after_frame()
    return pose_of_landmarks(found, rotation, layout, min_body)


def pose_of_landmarks(
    found: list[FrameLandmarks], rotation: int = 0, layout: PoseLayout = "mediapipe", min_body: float = 0.0
) -> PoseClip:
    """The clip that consists of the frames `found`. Arguments and errors: `extract_pose`."""
    quality = measure_quality(found, rotation)
    if quality.found["body"] < min_body * quality.frames:
        raise UnreadableClip(
            f"a body was found in {quality.found['body']} of {quality.frames} frames, fewer than {min_body:.0%}"
        )
    features = normalize_pose(found, layout)
    return PoseClip(found, features, measure_boxes(found), np.array([frame.time for frame in found]), quality)


def normalize_pose(frames: list[FrameLandmarks], layout: PoseLayout) -> ClipFeatures:
    """The features of stream pose, by the same code as those of keypoint files in `prepare pack`.

    Raises:
        UnreadableClip: no frame has both shoulders.
    """
    parts = [frame.parts for frame in frames]
    if layout == "sign-llava":
        landmarks = gather_landmarks(parts, SIGN_LLAVA_FACE_POINTS)
        normalize_landmarks(landmarks)  # its checks apply
        return ClipFeatures(to_float16(normalize_as_sign_llava(landmarks)), layout=SIGN_LLAVA)
    values, normalization = normalize_landmarks(gather_landmarks(parts))
    return ClipFeatures(to_float16(values), normalization, LAYOUT_DESCRIPTION)


def measure_boxes(frames: list[FrameLandmarks]) -> np.ndarray:
    """The squares around all points of face, left and right hand, float32 (T, 3, 3); see `PoseClip.boxes`."""
    boxes = np.full((len(frames), len(BOX_PARTS), 3), np.nan, np.float32)
    for index, frame in enumerate(frames):
        for column, part in enumerate(BOX_PARTS):
            if part in frame.parts:
                points = frame.parts[part]
                boxes[index, column] = *points.mean(axis=0), np.ptp(points, axis=0).max()
    return boxes
