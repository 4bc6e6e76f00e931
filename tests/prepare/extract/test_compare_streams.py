"""`prepare extract --compare` says whether two extractions of the same clips may be mixed."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended
from test_extract import annotate

from signllava_cli.data.keypoints import LAYOUT_DESCRIPTION
from signllava_cli.data.shard import LAYOUT
from signllava_cli.errors import UserError
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.prepare.extract.compare_streams import compare_streams

Command = Callable[..., Ended]
FRAMES = 40
LEFT_HAND = slice(92, 134)


def poses(seed: int = 0, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Clip -> (40, 208), in the second clip without a left hand in the first ten frames."""
    rng = np.random.default_rng(0)
    clips = {name: rng.uniform(-2, 2, (FRAMES, 208)) for name in ("a", "b")}
    other = np.random.default_rng(seed)
    for values in clips.values():
        values += noise * other.normal(size=values.shape)
    clips["b"][:10, LEFT_HAND] = 0
    return clips


def dataset(root: Path, clips: dict[str, np.ndarray], stream: str = "pose", layout: str = LAYOUT_DESCRIPTION) -> Path:
    annotate(root, {"rec": dict.fromkeys(clips)})
    write_stream(root, "train", stream, {"rec": clips}, 1)
    with h5py.File(root / stream / f"{stream}.train.0.h5", "a") as file:
        if layout:
            file.attrs[LAYOUT] = layout
    return root


def test_little_noise_may_be_mixed_and_is_measured_by_group(signllava: Command, tmp_path: Path) -> None:
    first = dataset(tmp_path / "first", poses())
    second = dataset(tmp_path / "second", poses(1, 0.003))
    ended = signllava("prepare", "extract", "--compare", second, "--out", first, "--split", "train")
    assert ended.code == 0, ended.err
    assert "they may be mixed" in ended.out
    differences = {each.group.name: each for each in compare_streams(first, second, "train", "pose")}
    assert list(differences) == ["body", "right hand", "left hand", "face"]
    for each in differences.values():
        median, p95 = each.percentiles  # of the length of a vector of two normal numbers
        assert median == pytest.approx(0.003 * 1.177, rel=0.1)
        assert p95 == pytest.approx(0.003 * 2.448, rel=0.1)
        assert (each.frames, each.only_first, each.only_second) == (2 * FRAMES, 0, 0)


@pytest.mark.parametrize("kind", ["another place", "another hand"])
def test_what_differs_more_must_not_be_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    changed = poses()
    if kind == "another place":
        changed["a"][:, LEFT_HAND] += 0.2
    else:
        changed["a"][:4, LEFT_HAND] = 0
    first, second = dataset(tmp_path / "first", poses()), dataset(tmp_path / "second", changed)
    differences = {each.group.name: each for each in compare_streams(first, second, "train", "pose")}
    assert [name for name, each in differences.items() if not each.is_small] == ["left hand"]
    assert "do not mix them: left hand differ by more" in capsys.readouterr().out
    assert differences["left hand"].only_first == (0 if kind == "another place" else 4)


def test_vectors_of_crops_are_compared_by_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = {"a": rng.normal(size=(FRAMES, 96))}
    changed = {"a": clips["a"].copy()}
    changed["a"][:, 32:64] *= 1.1
    first = dataset(tmp_path / "first", clips, "dino", "crops")
    second = dataset(tmp_path / "second", changed, "dino", "crops")
    differences = {each.group.name: each.percentiles[0] for each in compare_streams(first, second, "train", "dino")}
    assert differences == pytest.approx({"face": 0, "left hand": 0.1 / 1.05, "right hand": 0}, abs=1e-3)


def test_clips_that_cannot_be_compared_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dataset(tmp_path / "first", poses())
    clips = poses()
    second = dataset(tmp_path / "second", {"a": clips["a"], "b": clips["b"][:-1], "c": clips["b"]}, layout="")
    compare_streams(first, second, "train", "pose")
    out = " ".join(capsys.readouterr().out.split())
    assert f"only {second} has 1 clip (rec/c)" in out
    assert "1 clip has another length and cannot be compared (rec/b: 40 and 39 frames)" in out
    assert f"the layout of stream pose in {second} is unknown" in out
    assert "comparing 1 clip of 2 in both" in out


def test_other_layouts_and_widths_are_refused(tmp_path: Path) -> None:
    first = dataset(tmp_path / "first", poses())
    with pytest.raises(UserError, match=r"layout mediapipe-104-shoulders in .*, and sign-llava in"):
        compare_streams(first, dataset(tmp_path / "second", poses(), layout="sign-llava"), "train", "pose")
    narrow = {clip: values[:, :100] for clip, values in poses().items()}
    with pytest.raises(UserError, match=r"width 208 in .*, and 100 in"):
        compare_streams(first, dataset(tmp_path / "third", narrow), "train", "pose")
    short = {clip: values[:-1] for clip, values in poses().items()}
    with pytest.raises(UserError, match="no clip has the same number of frames"):
        compare_streams(first, dataset(tmp_path / "fourth", short), "train", "pose")
