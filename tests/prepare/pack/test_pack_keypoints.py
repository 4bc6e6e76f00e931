"""MediaPipe keypoints become 208 normalized numbers, from which the pixels can be computed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Ended
from pose_format import Pose
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions
from pose_format.utils.generic import reduce_holistic
from test_pack import annotate, assert_refused, pack, packed, report

from signllava_cli.serving.uploads import read_uploads

Command = Callable[..., Ended]
FACE: tuple[int, ...] = (0, 4, 13, 14, 17, 33, 37, 39, 46, 52, 55, 61, 64, 81, 82, 93, 133, 151, 152, 159, 172)
FACE += (178, 181, 263, 269, 276, 282, 285, 291, 294, 311, 323, 362, 386, 397, 468, 473)
PARTS = ("pose_landmarks", "right_hand_landmarks", "left_hand_landmarks", "face_landmarks")
COMPONENTS = ("POSE_LANDMARKS", "RIGHT_HAND_LANDMARKS", "LEFT_HAND_LANDMARKS", "FACE_LANDMARKS")
FEATURES_OF = dict(zip(PARTS, (slice(0, 50), slice(50, 92), slice(92, 134), slice(134, 208)), strict=True))


def pixels(frames: int, face: int = 478, body: int = 33, seed: int = 0) -> dict[str, np.ndarray]:
    """part -> (frames, points, 3) of integer pixels."""
    rng = np.random.default_rng(seed)
    counts = dict(zip(PARTS, (body, 21, 21, face), strict=True))
    points = {part: rng.integers(0, 1280, (frames, count, 3)).astype(float) for part, count in counts.items()}
    points["pose_landmarks"][:, 11, :2], points["pose_landmarks"][:, 12, :2] = (840, 400), (440, 420)
    return points


def select_points(points: dict[str, np.ndarray]) -> np.ndarray:
    """The 104 points of docs/packing.md, (frames, 104, 2)."""
    face = points["face_landmarks"]
    if face.shape[1] > 37:
        present = [point for point in FACE if point < face.shape[1]]
        chosen = np.full((len(face), 37, 3), np.nan)
        chosen[:, : len(present)] = face[:, present]
        face = chosen
    hands = [points["right_hand_landmarks"], points["left_hand_landmarks"]]
    return np.concatenate([points["pose_landmarks"][:, :25], *hands, face], axis=1)[..., :2]


def frames_of(points: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {part: values[frame].tolist() for part, values in points.items()} for frame in range(len(points[PARTS[0]]))
    ]


def write_json(file: Path, frames: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"keypoints": frames}))
    return file.parent


def stored(data: Path, clip: str = "rec/a") -> tuple[np.ndarray, np.ndarray]:
    """A clip's features, and the pixels (T, 104, 2) computed with its attributes."""
    with h5py.File(data / "mae/mae.train.0.h5") as file:
        assert "MediaPipe Holistic, 104 points (x, y)" in file.attrs["points"]
        assert "pixel = value * scale + center" in file.attrs["normalization"]
        values, attributes = file[clip][()], dict(file[clip].attrs)
    points = values.astype(float).reshape(len(values), 104, 2)
    return values, points * attributes["scale"] + attributes["center"]


def assert_pixels(actual: np.ndarray, expected: np.ndarray) -> None:
    """To half a pixel, the rounding of float16 in a picture of 1280 pixels; NaN are missing points, at the center."""
    center = (640, 410)
    np.testing.assert_allclose(actual, np.where(np.isnan(expected), center, expected), atol=0.5)


@pytest.mark.parametrize(("face", "body"), [(478, 33), (468, 33), (37, 25)])
def test_keypoints_become_208_numbers_from_which_pixels_follow(
    signllava: Command, tmp_path: Path, face: int, body: int
) -> None:
    points = pixels(6, face, body)
    source = write_json(tmp_path / "source/rec/a.json", frames_of(points)).parent
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    result = pack(signllava, data, source)
    assert result.code == 0, result.err
    assert "width 208" in result.out
    values, restored = stored(data)
    assert values.shape == (6, 208)
    assert_pixels(restored, select_points(points))
    np.testing.assert_allclose(values[:, 22:26], [[0.5, -0.025, -0.5, 0.025]] * 6, atol=2e-3)  # the shoulders
    if face == 468:
        assert (values[:, -4:] == 0).all()  # the irises


def test_missing_parts_and_points_are_0_and_points_may_be_objects(signllava: Command, tmp_path: Path) -> None:
    points = pixels(4)
    frames = frames_of(points)
    frames[0]["left_hand_landmarks"] = []
    frames[1]["right_hand_landmarks"] = None
    del frames[1]["face_landmarks"]
    frames[2]["pose_landmarks"][3] = None
    frames[2]["pose_landmarks"][4] = [{"x": 10, "y": 20.5, "z": 0, "visibility": 1}][0]
    frames[3] = {}
    source = write_json(tmp_path / "source/a.json", frames)
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    assert pack(signllava, data, source).code == 0
    values, restored = stored(data)
    assert (values[0, FEATURES_OF["left_hand_landmarks"]] == 0).all()
    assert (values[1, FEATURES_OF["right_hand_landmarks"]] == 0).all()
    assert (values[1, FEATURES_OF["face_landmarks"]] == 0).all()
    assert (values[2, 6:8] == 0).all()
    assert (values[3] == 0).all()
    np.testing.assert_allclose(restored[2, 4], [10, 20.5], atol=0.5)
    assert_pixels(restored[0, :25], select_points(points)[0, :25])


def test_the_shoulders_are_means_over_the_frames_that_show_both(signllava: Command, tmp_path: Path) -> None:
    points = pixels(3)
    body = points["pose_landmarks"]
    body[0, 11:13, :2], body[1, 11:13, :2] = [(300, 100), (100, 100)], [(600, 200), (200, 200)]
    frames = frames_of(points)
    frames[2]["pose_landmarks"][12] = None
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    assert pack(signllava, data, write_json(tmp_path / "source/a.json", frames)).code == 0
    with h5py.File(data / "mae/mae.train.0.h5") as file:
        np.testing.assert_allclose(file["rec/a"].attrs["center"], [300, 150])
        assert file["rec/a"].attrs["scale"] == 300


def test_faulty_keypoints_are_skipped_with_a_reason(signllava: Command, tmp_path: Path) -> None:
    good = frames_of(pixels(1))[0]
    errors: dict[str, tuple[object, str]] = {
        "blind": ([{**good, "pose_landmarks": []}, {}], "no frame has both shoulders"),
        "point": ([{**good, "pose_landmarks": [[5, 5]] * 33}], "the shoulders are 0 apart"),
        "share": ([{**good, "pose_landmarks": [[0.1 * n, 0.5] for n in range(33)]}], "coordinates must be pixels"),
        "few": ([{**good, "left_hand_landmarks": [[1, 2]] * 20}], "left_hand_landmarks has 20 points, expected 21"),
        "face": ([{**good, "face_landmarks": [[1, 2]] * 70}], "face_landmarks has 70 points, expected 37"),
        "words": ([{**good, "face_landmarks": [["a", "b"]] * 37}], "frame 0, face_landmarks 0 is not a point (x, y)"),
        "nan": ([{**good, "face_landmarks": [[float("nan"), 1]] * 37}], "NaN, expected a number"),
        "infinite": ([{**good, "face_landmarks": [[10**400, 1]] * 37}], "is not a point (x, y)"),
        "list": ([[1, 2]], "frame 0 is not an object"),
        "none": ([], "has no frames"),
        "number": (3, "has no list `keypoints`"),
    }
    write_json(tmp_path / "source/good.json", [good])
    for clip, (frames, _) in errors.items():
        write_json(tmp_path / f"source/{clip}.json", frames)
    (tmp_path / "source/deep.json").write_text("[" * 100_000)
    data = annotate(tmp_path / "data", {"rec": ["good", *errors, "deep"]})
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["rec/good"]
    reasons = report(data)["faulty"]
    assert isinstance(reasons, dict)
    for clip, (_, says) in errors.items():
        assert says in reasons[f"rec/{clip}"], clip
    assert "is not valid JSON" in reasons["rec/deep"]


def write_pose(
    file: Path, points: dict[str, np.ndarray], hidden: tuple[int, str, int] | None = None, people: int = 1
) -> None:
    """A `.pose` file as pose-format writes it, components in MediaPipe's order; `hidden` has confidence 0."""
    order = (
        "POSE_LANDMARKS",
        "FACE_LANDMARKS",
        "LEFT_HAND_LANDMARKS",
        "RIGHT_HAND_LANDMARKS",
        "POSE_WORLD_LANDMARKS",
    )
    part_of = dict(zip(COMPONENTS, PARTS, strict=True)) | {"POSE_WORLD_LANDMARKS": "pose_landmarks"}
    components = [
        PoseHeaderComponent(name, [str(n) for n in range(points[part_of[name]].shape[1])], [], [], "XYZC")
        for name in order
    ]
    values_of = {name: points[part_of[name]].copy() for name in order}
    values_of["POSE_WORLD_LANDMARKS"] /= 1000
    confidence = {name: np.ones(values.shape[:2]) for name, values in values_of.items()}
    if hidden is not None:
        frame, name, point = hidden
        confidence[name][frame, point] = 0
    xyz = np.concatenate(list(values_of.values()), axis=1)[:, None].repeat(people, axis=1).astype(np.float32)
    if people > 1:
        xyz[:, 1] += 100
    stacked_confidence = (
        np.concatenate(list(confidence.values()), axis=1)[:, None].repeat(people, axis=1).astype(np.float32)
    )
    pose = Pose(
        PoseHeader(0.2, PoseHeaderDimensions(1280, 1280, 0), components), NumPyPoseBody(25.0, xyz, stacked_confidence)
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as handle:
        pose.write(handle)


def test_pose_files_and_json_give_the_same_208_numbers(signllava: Command, tmp_path: Path) -> None:
    points = pixels(5)
    frames = frames_of(points)
    frames[3]["right_hand_landmarks"][7] = None
    write_json(tmp_path / "source/a.json", frames)
    write_pose(tmp_path / "source/b.pose", points, hidden=(3, "RIGHT_HAND_LANDMARKS", 7), people=2)
    data = annotate(tmp_path / "data", {"rec": ["a", "b"]})
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    (of_json, _), (of_pose, restored) = stored(data, "rec/a"), stored(data, "rec/b")
    np.testing.assert_array_equal(of_pose, of_json)
    (uploaded,) = read_uploads([("b.pose", tmp_path / "source/b.pose")], {"mae": 64, "pose": 208}, 2**24)
    np.testing.assert_array_equal(uploaded.features["pose"], of_pose)  # as uploaded to the page of `signllava serve`
    assert (of_pose[3, 50 + 14 : 50 + 16] == 0).all()
    assert_pixels(restored[:3], select_points(points)[:3])


BODY_NAMES = (
    "NOSE LEFT_EYE_INNER LEFT_EYE LEFT_EYE_OUTER RIGHT_EYE_INNER RIGHT_EYE RIGHT_EYE_OUTER LEFT_EAR RIGHT_EAR"
)
BODY_NAMES += " MOUTH_LEFT MOUTH_RIGHT LEFT_SHOULDER RIGHT_SHOULDER LEFT_ELBOW RIGHT_ELBOW LEFT_WRIST RIGHT_WRIST"
BODY_NAMES += " LEFT_PINKY RIGHT_PINKY LEFT_INDEX RIGHT_INDEX LEFT_THUMB RIGHT_THUMB LEFT_HIP RIGHT_HIP"
BODY_NAMES += " LEFT_KNEE RIGHT_KNEE LEFT_ANKLE RIGHT_ANKLE LEFT_HEEL RIGHT_HEEL LEFT_FOOT_INDEX RIGHT_FOOT_INDEX"
FINGERS = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
HAND_NAMES = ["WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"]
HAND_NAMES += [f"{finger}_{joint}" for finger in FINGERS for joint in ("MCP", "PIP", "DIP", "TIP")]
NAMES_OF = {
    "POSE_LANDMARKS": BODY_NAMES.split(),
    "FACE_LANDMARKS": [str(point) for point in range(478)],
    "LEFT_HAND_LANDMARKS": HAND_NAMES,
    "RIGHT_HAND_LANDMARKS": HAND_NAMES,
}


def holistic(points: dict[str, np.ndarray]) -> Pose:
    """A pose whose points have the names of MediaPipe, as pose-format's `video_to_pose` writes them."""
    components = [PoseHeaderComponent(name, names, [], [], "XYZC") for name, names in NAMES_OF.items()]
    part_of = dict(zip(COMPONENTS, PARTS, strict=True))
    xyz = np.concatenate([points[part_of[name]] for name in NAMES_OF], axis=1)[:, None].astype(np.float32)
    body = NumPyPoseBody(25.0, xyz, np.ones(xyz.shape[:3], np.float32))
    return Pose(PoseHeader(0.2, PoseHeaderDimensions(1280, 1280, 0), components), body)


def save_pose(file: Path, pose: Pose) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as handle:
        pose.write(handle)


def test_points_of_a_reduced_pose_file_are_found_by_name(signllava: Command, tmp_path: Path) -> None:
    """Points besides the 104, and the order of components and points, do not matter."""
    points = pixels(3)
    complete = holistic(points)
    save_pose(tmp_path / "source/complete.pose", complete)
    points_of = {
        "POSE_LANDMARKS": BODY_NAMES.split()[24::-1],
        "FACE_LANDMARKS": [str(point) for point in sorted({*FACE, 7, 10, 21})],
    }
    reduced = complete.get_components([*COMPONENTS[::-1]], points_of)
    assert reduced.body.data.shape[2] < complete.body.data.shape[2]
    save_pose(tmp_path / "source/reduced.pose", reduced)
    data = annotate(tmp_path / "data", {"rec": ["complete", "reduced"]})
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    values = packed(data)
    assert_pixels(stored(data, "rec/complete")[1], select_points(points))
    np.testing.assert_array_equal(values["rec/reduced"], values["rec/complete"])


def test_points_that_a_pose_file_lacks_are_named(signllava: Command, tmp_path: Path) -> None:
    complete = holistic(pixels(3))
    save_pose(tmp_path / "source/complete.pose", complete)
    save_pose(tmp_path / "source/reduced.pose", reduce_holistic(complete))  # 8 points of the body, 128 of the face
    save_pose(tmp_path / "source/handless.pose", complete.get_components([*COMPONENTS[:2], "FACE_LANDMARKS"]))
    no_wrist = {"LEFT_HAND_LANDMARKS": HAND_NAMES[1:]}
    save_pose(tmp_path / "source/wristless.pose", complete.get_components([*COMPONENTS], no_wrist))
    data = annotate(tmp_path / "data", {"rec": ["complete", "reduced", "handless", "wristless"]})
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["rec/complete"]
    reasons = report(data)["faulty"]
    assert isinstance(reasons, dict)
    for part in ("POSE_LANDMARKS lacks", "NOSE", "and 12 more", "FACE_LANDMARKS lacks 4, 64, 151, 294", "reduced"):
        assert part in reasons["rec/reduced"]
    assert "no LEFT_HAND_LANDMARKS" in reasons["rec/handless"]
    assert "LEFT_HAND_LANDMARKS lacks WRIST" in reasons["rec/wristless"]


def test_other_pose_files_are_refused_by_name(signllava: Command, tmp_path: Path) -> None:
    write_pose(tmp_path / "source/good.pose", pixels(2))
    write_pose(tmp_path / "source/contours.pose", pixels(2, face=128))
    openpose = [PoseHeaderComponent("pose_keypoints_2d", ["Nose"], [], [], "XYC")]
    other = Pose(
        PoseHeader(0.2, PoseHeaderDimensions(10, 10, 0), openpose),
        NumPyPoseBody(25.0, np.ones((2, 1, 1, 2), np.float32), np.ones((2, 1, 1), np.float32)),
    )
    with open(tmp_path / "source/other.pose", "wb") as handle:
        other.write(handle)
    content = (tmp_path / "source/good.pose").read_bytes()
    (tmp_path / "source/cut.pose").write_bytes(content[: len(content) // 2])
    (tmp_path / "source/noise.pose").write_bytes(np.random.default_rng(0).bytes(5000))
    data = annotate(tmp_path / "data", {"rec": ["good", "contours", "other", "cut", "noise"]})
    result = pack(signllava, data, tmp_path / "source")
    assert result.code == 0, result.err
    assert list(packed(data)) == ["rec/good"]
    reasons = report(data)["faulty"]
    assert isinstance(reasons, dict)
    assert "FACE_LANDMARKS lacks 133, 151," in reasons["rec/contours"]
    assert "has pose_keypoints_2d, but no POSE_LANDMARKS" in reasons["rec/other"]
    assert "is not a valid .pose file" in reasons["rec/cut"]
    assert "is not a valid .pose file" in reasons["rec/noise"]


def test_a_missing_pose_extra_is_named(signllava: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pose(tmp_path / "source/a.pose", pixels(2))
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    monkeypatch.setitem(sys.modules, "pose_format", None)
    assert_refused(pack(signllava, data, tmp_path / "source"), 'pip install "signllava[pose]"')
