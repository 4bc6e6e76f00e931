"""The script of docs/packing.md for the OpenPose keypoints of How2Sign makes files that `prepare pack` packs."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import Ended, run_script
from test_pack import annotate, pack, packed

ROOT = Path(__file__).parents[3]
COUNTS = {"pose": 25, "face": 70, "hand_left": 21, "hand_right": 21}


def write_clip(folder: Path, frames: int, confidence: float = 0.9) -> None:
    """Point p of a part at frame f is at (100 p + f, 10 p); the first frame has nobody, the second no left hand."""
    folder.mkdir(parents=True)
    for frame in range(frames):
        person: dict[str, object] = {"person_id": [-1], "pose_keypoints_3d": []}
        for part, count in COUNTS.items():
            points = [value for point in range(count) for value in (100 * point + frame, 10 * point, confidence)]
            person[f"{part}_keypoints_2d"] = [] if part == "hand_left" and frame == 1 else points
        content = {"version": 1.3, "people": [person] if frame else []}
        (folder / f"{folder.name}_{frame:012d}_keypoints.json").write_text(json.dumps(content))


def test_the_script_converts_openpose_folders(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    [(name, script)] = re.findall(
        r"^```python\n# (\S+)\n(.*?)^```$", (ROOT / "docs/packing.md").read_text(), re.M | re.S
    )
    (tmp_path / name).write_text(script)
    write_clip(tmp_path / "json" / "-v_0-5-rgb_front", 3)
    write_clip(tmp_path / "json" / "-v_1-5-rgb_front", 2, confidence=0)
    out = run_script(f"{sys.executable} {name} json openpose", tmp_path, tmp_path)
    assert "no frame has both shoulders" in out
    assert "1 of 2 clips in openpose" in out
    data = annotate(tmp_path / "data", {"-v-5-rgb_front": ["-v_0-5-rgb_front"]})
    ended = pack(signllava, data, tmp_path / "openpose", "--layout", "openpose-137-shoulders")
    assert ended.code == 0, ended.err
    frames = packed(data)["-v-5-rgb_front/-v_0-5-rgb_front"].reshape(3, 137, 2).astype(float)
    assert not frames[0].any()  # nobody
    assert not frames[1, 46:67].any()  # no left hand
    scale = np.hypot(300, 30)  # from shoulder 2 to shoulder 5
    center = np.array([350 + 1.5, 35])
    np.testing.assert_allclose(frames[2, 46 + 20], (np.array([2002, 200]) - center) / scale, rtol=2e-3)  # a left hand
    np.testing.assert_allclose(frames[2, 67 + 69], (np.array([6902, 690]) - center) / scale, rtol=2e-3)  # a face
