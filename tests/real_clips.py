"""The three real clips and the landmark model in a folder beside the repository, which are not ours to ship."""

import ctypes
from fractions import Fraction
from pathlib import Path

import pytest

LIBRARIES = ("libEGL.so.1", "libGLESv2.so.2")  # of the system, which MediaPipe loads


def find_samples() -> Path | None:
    """The folder shared/samples/video beside the repository, if MediaPipe can be loaded on this machine."""
    try:
        for library in LIBRARIES:
            ctypes.CDLL(library)
    except OSError:
        return None
    folders = (folder / "shared" / "samples" / "video" for folder in Path(__file__).resolve().parents)
    return next((folder for folder in folders if folder.is_dir()), None)


SAMPLES = find_samples()
CLIPS = ("_15CDIexNDM_0-5-rgb_front", "_0fO5ETSwyg_1-5-rgb_front", "_15CDIexNDM_4-5-rgb_front")
FRAMES = dict(zip(CLIPS, (15, 27, 71), strict=True))

needs_samples = pytest.mark.skipif(SAMPLES is None, reason="no shared/samples/video with real clips, or no libEGL")


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
