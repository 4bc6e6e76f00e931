"""The three real clips and the landmark model in a folder beside the repository, which are not ours to ship."""

from fractions import Fraction
from pathlib import Path

import pytest

SAMPLES = next(
    (
        folder / "shared" / "samples" / "video"
        for folder in (*Path(__file__).resolve().parents, Path("/work"))
        if (folder / "shared" / "samples" / "video").is_dir()
    ),
    None,
)
CLIPS = ("_15CDIexNDM_0-5-rgb_front", "_0fO5ETSwyg_1-5-rgb_front", "_15CDIexNDM_4-5-rgb_front")
FRAMES = dict(zip(CLIPS, (15, 27, 71), strict=True))

needs_samples = pytest.mark.skipif(SAMPLES is None, reason="shared/samples/video, with real clips, is not here")


def clip_file(name: str) -> Path:
    assert SAMPLES is not None
    return SAMPLES / f"{name}.mp4"


def model_file() -> Path:
    assert SAMPLES is not None
    return SAMPLES / "holistic_landmarker.task"


def write_with_pause(file: Path, still: int = 36) -> None:
    """Two real clips, and between them the last frame of the first one for `still` frames."""
    from videos_of_numbers import constant_rate, write_video

    from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut

    first, second = ([frame.image for frame in decode_cut(VideoCut(clip_file(name)))] for name in CLIPS[:2])
    images = [*first, *[first[-1]] * still, *second]
    write_video(file, constant_rate(len(images), Fraction(24)), images=images, options={"preset": "ultrafast"})
