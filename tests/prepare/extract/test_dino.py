"""Stream dino: crops around face and hands, and their vectors by an image backbone of transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Ended, MadeOnce
from numbers_extractor import write_numbered
from real_clips import CLIPS, FRAMES, SAMPLES, clip_file, model_file
from safetensors.torch import load_file, save_file
from test_extract import REAL_CUTS, annotate, real, report  # noqa: F401 (a fixture)
from transformers import AutoModel, ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model

from signllava_cli.data.work_shard import WorkShard
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.clip_extractor import ExtractorSettings
from signllava_cli.prepare.extract.crops import Cropper
from signllava_cli.prepare.extract.dino_extractor import DinoSettings
from signllava_cli.prepare.extract.extract import ExtractRequest, extract
from signllava_cli.prepare.extract.image_backbone import ImageBackbone
from signllava_cli.prepare.extract.pose_extractor import PoseSettings

Command = Callable[..., Ended]
WIDTH, SIZE = 32, 56
NAN = float("nan")


def save_dinov2(folder: Path, seed: int) -> None:
    """A random DINOv2 for images of 56 x 56."""
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, image_size=518)
    Dinov2Model(config).save_pretrained(folder)
    settings = {"crop_size": {"height": SIZE, "width": SIZE}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def backbones(made_once: MadeOnce) -> Path:
    """The folders `face` and `hands`, each with a tiny random DINOv2."""

    def make(folder: Path) -> None:
        for seed, name in enumerate(("face", "hands")):
            save_dinov2(folder / name, seed)

    return made_once("backbones", make)


# ---- crops ----


def gradient(height: int = 120, width: int = 200) -> np.ndarray:
    """An image in which a pixel's color is its column and its row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def extent(crop: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a crop of `gradient`, in its pixels."""
    return tuple(map(float, (crop[0, 0, 0], crop[0, 0, 1], crop[-1, -1, 0], crop[-1, -1, 1])))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 60, 50), (70, 30, 129, 89)),  # 1.2 times the side
        ((2, 60, 50), (0, 30, 59, 89)),  # pushed inside at each edge
        ((199, 119, 50), (140, 60, 199, 119)),
        ((100, 60, 500), (40, 0, 159, 119)),  # not larger than the frame
        ((100, 3, 50), (70, 0, 129, 59)),
    ],
)
def test_a_crop_is_a_square_inside_the_frame(
    box: tuple[float, float, float], expected: tuple[float, float, float, float]
) -> None:
    [crop] = Cropper(60, 1).crop(gradient(), np.array([box]))
    assert crop.shape == (60, 60, 3)
    assert extent(crop) == pytest.approx(expected, abs=1.5)


def test_a_missing_hand_takes_its_last_crop_else_black() -> None:
    cropper = Cropper(10, 2)
    image = gradient()
    first = cropper.crop(image, np.array([[NAN] * 3, [50, 50, 20]]))
    assert not first[0].any()
    assert first[1].any()
    second = cropper.crop(255 - image, np.array([[100, 60, 30], [NAN] * 3]))
    assert (second[1] == first[1]).all()
    assert second[0].any()


def test_a_crop_is_resized_whole() -> None:
    """Not cut in its center, as the processor of DINOv2 does: fingertips are at the edge."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:80, 20:80] = 255
    image[23:77, 23:77] = 0
    [crop] = Cropper(224, 1).crop(image, np.array([[50, 50, 50]]))
    for edge in (crop[:6], crop[-6:], crop[:, :6], crop[:, -6:]):
        assert edge.mean() > 128


# ---- backbones ----


def test_a_backbone_gives_the_class_token_of_normalized_images(backbones: Path) -> None:
    backbone = ImageBackbone(str(backbones / "face"), "cpu")
    assert (backbone.size, backbone.width) == (SIZE, WIDTH)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    normalized = (images / 255 - np.array([0.4, 0.5, 0.6])) / 0.2
    model = AutoModel.from_pretrained(backbones / "face").eval()
    with torch.inference_mode():
        expected = model(pixel_values=torch.tensor(normalized, dtype=torch.float32).permute(0, 3, 1, 2)).pooler_output
    np.testing.assert_allclose(backbone.vectors(images), expected.numpy(), atol=1e-5)
    assert backbone.digest() != ImageBackbone(str(backbones / "hands"), "cpu").digest()


def test_a_convolutional_backbone_gives_the_mean_of_its_map(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=64)
    ConvNextModel(config).save_pretrained(tmp_path / "m")
    backbone = ImageBackbone(str(tmp_path / "m"), "cpu")
    assert (backbone.size, backbone.width) == (64, 16)


def test_wrong_backbones_are_refused_in_one_line(
    signllava: Command, backbones: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    data = annotate(tmp_path / "data", REAL_CUTS)
    incomplete = tmp_path / "incomplete"
    save_dinov2(incomplete, 0)
    weights = load_file(incomplete / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, incomplete / "model.safetensors", metadata={"format": "pt"})
    for location, message in (
        (tmp_path / "nowhere", "cannot be loaded"),
        (tiny_llm, "does not turn an image into a vector"),
        (incomplete, "lacks weights (layernorm.weight"),
    ):
        words = ("--streams", "dino", "--dino", location, "--split", "train", "--out", data)
        ended = signllava("prepare", "extract", backbones, *words)
        assert ended.code == 2
        assert message in " ".join(ended.err.split())
        assert "Traceback" not in ended.err


# ---- the stream ----


def test_dino_needs_the_boxes_of_stream_pose(signllava: Command, backbones: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", {"rec": {"c": None}})
    write_numbered(tmp_path / "c.mp4", 3)
    words = ("--streams", "dino", "--dino", backbones / "face", "--split", "train", "--out", data)
    ended = signllava("prepare", "extract", tmp_path, *words)
    assert ended.code == 2
    assert "which are missing of 1 recording (rec): extract stream pose of split train first" in ended.err


def extract_dino(data: Path, backbones: Path, hands: str | None = "hands", **options: object) -> None:
    settings = DinoSettings.load(str(backbones / "face"), hands and str(backbones / hands))
    videos = clip_file(CLIPS[0]).parent
    extract(ExtractRequest(videos, data, "train", {"dino": settings}, **options))  # type: ignore[arg-type]


@pytest.fixture
def with_pose(real: Path, tmp_path: Path) -> Callable[[str], Path]:  # noqa: F811
    """Makes datasets with stream pose of the real clips."""
    import shutil

    return lambda name: Path(shutil.copytree(real, tmp_path / name))


@pytest.mark.drill
@pytest.mark.skipif(SAMPLES is None, reason="no real clips")
def test_real_clips_become_a_stream_of_crops(with_pose: Callable[[str], Path], backbones: Path) -> None:
    data = with_pose("data")
    extract_dino(data, backbones, workers=2)
    with h5py.File(data / "dino/dino.train.0.h5") as file:
        vectors = file[f"rec/{CLIPS[1]}"][()].astype(float)  # (27, 3 * WIDTH)
        assert file[f"{CLIPS[2]}/x"].shape == (12, 3 * WIDTH)
        assert str(file.attrs["layout"]).startswith("crops face,left,right: face@")
        assert " hands@" in str(file.attrs["layout"])
    with h5py.File(data / "pose/pose.train.0.h5") as file:
        assert len(file[f"rec/{CLIPS[1]}"]) == len(vectors) == FRAMES[CLIPS[1]]
    assert (vectors.std(axis=0) > 0).all()  # each part moves
    assert report(data, "dino")["clips_extracted"] == 4
    with h5py.File(data / "pose/extract.train/arrays/rec.h5") as file:
        boxes = file[f"{CLIPS[1]}/boxes"][()]
    missing = np.flatnonzero(np.isnan(boxes[:, 1, 0]))  # frames without a left hand
    assert len(missing)
    for frame in missing[missing > 0]:
        assert (vectors[frame, WIDTH : 2 * WIDTH] == vectors[frame - 1, WIDTH : 2 * WIDTH]).all()


@pytest.mark.skipif(SAMPLES is None, reason="no real clips")
@pytest.mark.drill
def test_shares_and_workers_do_not_change_the_bytes(with_pose: Callable[[str], Path], backbones: Path) -> None:
    whole, shared = with_pose("whole"), with_pose("shared")
    extract_dino(whole, backbones, None, workers=1)
    for index in (1, 0):
        extract_dino(shared, backbones, None, workers=2, share=WorkShard(index, 2))
    for name in ("dino.train.0.h5", "metadata_dino.train.json", "extract.dino.train.json"):
        assert (whole / "dino" / name).read_bytes() == (shared / "dino" / name).read_bytes()


@pytest.mark.skipif(SAMPLES is None, reason="no real clips")
@pytest.mark.drill
def test_the_jobs_of_an_array_extract_both_streams(
    with_pose: Callable[[str], Path], backbones: Path, tmp_path: Path
) -> None:
    """A job needs the boxes of its own share alone; the last one packs both streams."""
    whole, data = with_pose("whole"), annotate(tmp_path / "data", REAL_CUTS)
    extract_dino(whole, backbones, workers=1)
    dino = DinoSettings.load(str(backbones / "face"), str(backbones / "hands"))
    streams: dict[str, ExtractorSettings] = {"pose": PoseSettings(model_file()), "dino": dino}
    for index in (1, 0):
        assert not (data / "dino/metadata_dino.train.json").exists()
        extract(ExtractRequest(clip_file(CLIPS[0]).parent, data, "train", streams, 1, WorkShard(index, 2)))
    for name in ("pose/pose.train.0.h5", "dino/dino.train.0.h5", "dino/extract.dino.train.json"):
        assert (whole / name).read_bytes() == (data / name).read_bytes()


@pytest.mark.skipif(SAMPLES is None, reason="no real clips")
@pytest.mark.drill
def test_another_backbone_is_refused_unless_overwritten(with_pose: Callable[[str], Path], backbones: Path) -> None:
    data = with_pose("data")
    extract_dino(data, backbones, workers=1)
    with pytest.raises(UserError, match="was made with other settings"):
        extract_dino(data, backbones, None, workers=1)
