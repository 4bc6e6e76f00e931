"""Cuts squares around face and hands out of frames, by the boxes that stream pose has stored."""

import math

import numpy as np

MARGIN = 1.2  # of the side of the square around all points of the part


class Cropper:
    """Crops the frames of one clip in order: a missing part takes its last crop, or black before the first one.

    The rule is that of the dino streams of Sign_LLaVA: squares around the mean of the points, pushed inside the
    frame.
    """

    def __init__(self, size: int, num_parts: int) -> None:
        self._size = size
        self._last = [np.zeros((size, size, 3), np.uint8) for _ in range(num_parts)]

    def crop(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """uint8 (parts, size, size, 3), the crops of one frame.

        Args:
            image: uint8 (H, W, 3).
            boxes: (parts, 3), for each part center x, y and side in pixels; NaN where it is missing.
        """
        for part, box in enumerate(boxes):
            if np.isfinite(box).all():
                self._last[part] = _crop_square(image, box[:2], MARGIN * float(box[2]), self._size)
        return np.stack(self._last)


def _crop_square(image: np.ndarray, center: np.ndarray, side: float, size: int) -> np.ndarray:
    """The square around `center` (x, y), moved inside the image and resized: uint8 (size, size, 3)."""
    from PIL import Image

    height, width = image.shape[:2]
    pixels = min(max(2, math.ceil(side)), height, width)
    left = min(max(0, round(float(center[0]) - pixels / 2)), width - pixels)
    top = min(max(0, round(float(center[1]) - pixels / 2)), height - pixels)
    square = Image.fromarray(image[top : top + pixels, left : left + pixels])
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
