"""Writes videos whose frames show their numbers, as black and white squares that survive compression and rotation."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, SQUARE = 12, 16  # two rows of six squares
HEIGHT, WIDTH = 3 * SQUARE, 6 * SQUARE
TIME_BASE = Fraction(1, 90_000)


def numbered_image(number: int) -> np.ndarray:
    """uint8 (HEIGHT, WIDTH, 3). The last row of squares is a mark of the upright picture: white on the left."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)]).reshape(2, 6)
    rows = np.concatenate([bits, [[1, 1, 0, 0, 0, 0]]])
    gray = np.kron(rows, np.ones((SQUARE, SQUARE))) * 200 + 28
    return np.repeat(gray[..., None], 3, axis=2).astype(np.uint8)


def read_number(image: np.ndarray) -> int:
    """The number that an upright frame shows; -1 if it is not upright."""
    if image.shape != (HEIGHT, WIDTH, 3):
        return -1
    rows = image[..., 0].reshape(3, SQUARE, 6, SQUARE)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)) > 128
    if rows[2].tolist() != [True, True, False, False, False, False]:
        return -1
    return int(sum(1 << bit for bit, is_set in enumerate(rows[:2].ravel()) if is_set))


def write_video(
    file: Path,
    times: Sequence[Fraction],
    *,
    codec: str = "libx264",
    gop: int = 40,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    images: Sequence[np.ndarray] | None = None,
    is_index_first: bool = False,
) -> None:
    """A video whose frame k is shown at `times[k]` and shows k, or `images[k]`.

    `rotation`: degrees by which the header tells players to turn the picture counterclockwise; it is stored turned
    the other way.
    """
    pictures = images if images is not None else [numbered_image(number) for number in range(len(times))]
    pictures = [np.ascontiguousarray(np.rot90(picture, -rotation // 90)) for picture in pictures]
    header = {"movflags": "faststart"} if is_index_first else {}
    with av.open(str(file), "w", options=header) as container:
        stream = container.add_stream(codec, rate=30, options={"threads": "1", **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        stream.codec_context.gop_size = gop
        if rotation:
            stream.set_display_rotation(rotation)
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def constant_rate(count: int, fps: Fraction = Fraction(30_000, 1001)) -> list[Fraction]:
    """Frame times of a constant rate, rounded to the time base of the video."""
    return [Fraction(round(number / fps / TIME_BASE)) * TIME_BASE for number in range(count)]


def variable_rate(count: int, seed: int = 0) -> list[Fraction]:
    """Frame times with steps of 5 to 120 ms."""
    steps = np.random.default_rng(seed).integers(450, 10_800, count - 1)
    return [Fraction(int(ticks)) * TIME_BASE for ticks in np.concatenate([[0], np.cumsum(steps)])]
