"""Landmarks of real clips: found, reproducible, and the same numbers as those of keypoint files."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from real_clips import CLIPS, FRAMES, clip_file, model_file, needs_samples

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache, read_features
from signllava_cli.data.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND
from signllava_cli.data.sign_llava_pose import SIGN_LLAVA_FACE_POINTS
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.landmarks import FrameLandmarks, LandmarkFinder
from signllava_cli.prepare.extract.pose_features import (
    PoseClip,
    extract_pose,
    measure_boxes,
    normalize_pose,
    pose_of_frames,
)
from signllava_cli.prepare.extract.pose_quality import measure_quality
from signllava_cli.prepare.extract.video_cuts import VideoCut, VideoFrame, decode_cut

PARTS = {BODY: 33, RIGHT_HAND: 21, LEFT_HAND: 21, FACE: 478}


@cache
def pose(name: str) -> PoseClip:
    return extract_pose(VideoCut(clip_file(name)), LandmarkFinder(model_file()))


@needs_samples
@pytest.mark.parametrize("name", CLIPS)
def test_hands_are_found_in_most_frames_of_real_clips(name: str) -> None:
    clip = pose(name)
    assert clip.quality.frames == len(clip.features.frames) == FRAMES[name]
    assert clip.quality.share("body") == clip.quality.share("face") == 1
    assert clip.quality.share("left_hand") >= 0.9
    assert clip.quality.share("right_hand") >= 0.9
    assert (clip.quality.jumps, clip.quality.has_other_people) == (0, False)
    assert clip.quality.people_checks >= 1
    assert clip.quality.fps == pytest.approx(24, rel=0.01)
    assert clip.features.frames.dtype == np.float16
    assert clip.features.frames.shape == (FRAMES[name], 208)


@pytest.mark.drill
@needs_samples
def test_the_same_clip_gives_the_same_bytes() -> None:
    """Also by a finder that has seen other clips before."""
    name = CLIPS[1]
    finder = LandmarkFinder(model_file())
    for other in (CLIPS[0], name):
        clip = extract_pose(VideoCut(clip_file(other)), finder)
    assert clip.features.frames.tobytes() == pose(name).features.frames.tobytes()
    assert clip.boxes.tobytes() == pose(name).boxes.tobytes()
    assert clip.quality == pose(name).quality


@needs_samples
def test_the_numbers_are_those_of_packing_keypoint_json(tmp_path: Path) -> None:
    frames = pose(CLIPS[2]).frames
    file = tmp_path / "c.json"
    keypoints = [
        {part: frame.parts[part].tolist() if part in frame.parts else [] for part in PARTS} for frame in frames
    ]
    file.write_text(json.dumps({"keypoints": keypoints}))
    with HDF5FileCache() as handles:
        packed = read_features(ClipSource(file, "mediapipe"), handles)
    assert packed.frames.tobytes() == pose(CLIPS[2]).features.frames.tobytes()
    assert packed.layout == pose(CLIPS[2]).features.layout
    extracted = pose(CLIPS[2]).features.normalization
    assert packed.normalization is not None
    assert extracted is not None
    assert packed.normalization.scale == extracted.scale
    assert packed.normalization.center.tolist() == extracted.center.tolist()


@needs_samples
def test_landmarks_lie_on_the_signer() -> None:
    """The mean face box is around the nose, the hands' boxes hold their wrist; all are inside the picture."""
    clip = pose(CLIPS[1])
    face, left, right = clip.boxes[:, 0], clip.boxes[:, 1], clip.boxes[:, 2]
    for index, frame in enumerate(clip.frames):
        width, height = frame.size
        nose = frame.parts[BODY][0]
        assert abs(face[index, :2] - nose).max() < face[index, 2] / 2
        for box, part in ((left, LEFT_HAND), (right, RIGHT_HAND)):
            if part in frame.parts:
                assert abs(box[index, :2] - frame.parts[part][0]).max() < box[index, 2]
                assert 0 < box[index, 0] < width
                assert 0 < box[index, 1] < height
            else:
                assert np.isnan(box[index]).all()


@needs_samples
def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.task").write_bytes(b"no model" * 100)
    with pytest.raises(UserError, match=r"m\.task is not a model of HolisticLandmarker") as refused:
        extract_pose(VideoCut(clip_file(CLIPS[0])), LandmarkFinder(tmp_path / "m.task"))
    assert "\n" not in str(refused.value)


@needs_samples
def test_two_people_are_seen() -> None:
    """The landmarker follows one of them without a word."""
    pairs = zip(*(decode_cut(VideoCut(clip_file(name))) for name in CLIPS[:2]), strict=False)
    together = (
        VideoFrame(left.time, np.concatenate([left.image[:, 320:960], right.image[:, 320:960]], axis=1))
        for left, right in pairs
    )
    with LandmarkFinder(model_file()) as finder:
        quality = pose_of_frames(list(together)[:4], finder).quality
    assert quality.has_other_people
    assert (quality.people_checks, quality.people_many) == (1, 1)


# ---- without a model: landmarks are made ----


def made_frames(count: int, missing: dict[int, tuple[str, ...]] | None = None, seed: int = 0) -> list[FrameLandmarks]:
    """Random points; `missing`: frame -> its missing parts."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        parts = {part: rng.uniform(100, 600, (number, 2)) for part, number in PARTS.items()}
        parts[BODY][11], parts[BODY][12] = (440, 300), (240, 310)
        for part in (missing or {}).get(index, ()):
            del parts[part]
        frames.append(FrameLandmarks(index / 25, parts, (1280, 720)))
    return frames


def test_quality_counts_shares_gaps_and_jumps() -> None:
    missing = {
        0: (LEFT_HAND,),
        3: (LEFT_HAND, RIGHT_HAND),
        4: (LEFT_HAND,),
        5: (LEFT_HAND,),
        8: (BODY,),
        9: (LEFT_HAND,),
    }
    frames = made_frames(10, missing)
    for frame in frames[6:]:
        if BODY in frame.parts:
            frame.parts[BODY][:] += (150, 0)
    quality = measure_quality(frames, 90)
    assert quality.found == {"body": 9, "left_hand": 5, "right_hand": 9, "face": 10}
    assert quality.longest_gap == {"body": 1, "left_hand": 3, "right_hand": 1, "face": 0}
    assert (quality.jumps, quality.rotation, quality.fps) == (1, 90, 25.0)
    assert type(quality).from_json(json.loads(json.dumps(quality.to_json()))) == quality


def test_a_clip_without_shoulders_is_refused_in_both_layouts() -> None:
    frames = made_frames(3, dict.fromkeys(range(3), (BODY,)))
    with pytest.raises(UnreadableClip, match="no frame has both shoulders"):
        normalize_pose(frames, "mediapipe")
    with pytest.raises(UnreadableClip, match="no frame has both shoulders"):
        normalize_pose(frames, "sign-llava")


def test_boxes_are_squares_around_all_points() -> None:
    frames = made_frames(2, {1: (LEFT_HAND,)})
    boxes = measure_boxes(frames)
    face = frames[0].parts[FACE]
    assert boxes[0, 0, :2] == pytest.approx(face.mean(axis=0))
    assert boxes[0, 0, 2] == pytest.approx(max(np.ptp(face[:, 0]), np.ptp(face[:, 1])))
    assert np.isnan(boxes[1, 1]).all()
    assert not np.isnan(boxes[0]).any()


def published_in_box(points: np.ndarray) -> np.ndarray:
    """The published rule for one frame of a hand or a face, point by point: padded to a square, then by a fifth."""
    x, y = points[:, 0] - points[:, 0].min(), points[:, 1] - points[:, 1].min()
    side = max(x.max(), y.max())
    half = int(abs(x.max() - y.max()) / 2)
    x, y = (x, y + half) if x.max() > y.max() else (x + half, y)
    total = side + 2 * 0.2 * side
    return np.stack([(x + 0.2 * side) / total * 2 - 1, (y + 0.2 * side) / total * 2 - 1], axis=1)


def test_the_layout_of_sign_llava_has_its_points_and_normalization() -> None:
    frames = made_frames(4, {2: (RIGHT_HAND,), 3: (BODY,)})
    features = normalize_pose(frames, "sign-llava")
    assert features.layout == "sign-llava"
    assert features.normalization is None
    values = features.frames.astype(float).reshape(4, 104, 2)
    assert {402, 405} < set(SIGN_LLAVA_FACE_POINTS)
    assert not {37, 82} & set(SIGN_LLAVA_FACE_POINTS)
    parts = frames[0].parts
    width = np.hypot(200, 10)
    np.testing.assert_allclose(values[0, :25], (parts[BODY][:25] - (340, 305)) / (1.5 * width), atol=2e-3)
    np.testing.assert_allclose(values[0, 25:46], published_in_box(parts[RIGHT_HAND]), atol=1e-3)
    np.testing.assert_allclose(values[1, 46:67], published_in_box(frames[1].parts[LEFT_HAND]), atol=1e-3)
    face = parts[FACE][list(SIGN_LLAVA_FACE_POINTS)]
    np.testing.assert_allclose(values[0, 67:], published_in_box(face), atol=1e-3)
    assert (values[2, 25:46] == -1).all()
    assert (values[3, :25] == 0).all()
