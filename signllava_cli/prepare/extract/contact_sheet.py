"""The contact sheet of an extraction: frames of the clips that should be looked at, with what was found drawn in."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from markupsafe import escape

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.keypoints import (
    BODY,
    FACE,
    LAYOUT_DESCRIPTION,
    LEFT_HAND,
    NUM_POINTS,
    POINT_OFFSETS,
    RIGHT_HAND,
)
from signllava_cli.data.shard import read_layout
from signllava_cli.errors import format_count
from signllava_cli.files import write_text
from signllava_cli.prepare.extract.pose_features import BOX_PARTS
from signllava_cli.prepare.extract.pose_quality import HANDS, NAMES, PoseQuality
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut

if TYPE_CHECKING:
    from PIL.Image import Image

NUM_FRAMES = 6  # of each clip, evenly spaced
PICTURE_WIDTH = 400  # pixels
COLORS = {BODY: "#ffd400", FACE: "#ff5ad0", LEFT_HAND: "#00e06a", RIGHT_HAND: "#35a7ff"}


@dataclass(frozen=True)
class SheetClip:
    """A clip on the sheet. `features_file`, `arrays_file`: the files of its recording, with what was found in it."""

    id: str
    cut: VideoCut
    quality: PoseQuality
    features_file: Path
    arrays_file: Path


def write_contact_sheet(file: Path, title: str, clips: Sequence[SheetClip]) -> None:
    """Write the sheet: one HTML file, with its pictures in it."""
    rows = "\n".join(_row(clip) for clip in clips)
    legend = " ".join(
        f'<span style="color:{color}">&#9632;</span> {NAMES[part].replace("_", " ")}'
        for part, color in COLORS.items()
    )
    write_text(file, _PAGE.format(title=escape(title), legend=legend, rows=rows))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 1.5em; background: #fff; color: #111 }}
h2 {{ font-size: 1em; margin: 1.4em 0 .3em }}
figure {{ display: inline-block; margin: 0 4px 4px 0 }}
figcaption {{ font-size: 12px }}
.legend {{ background: #222; color: #fff; padding: .3em .6em }}
img {{ display: block }}
</style>
<h1>{title}</h1>
<p>The clips with several people, with jumps, and with the fewest hands. Squares: what crops are cut by.</p>
<p class="legend">{legend}</p>
{rows}
</html>
"""


def _row(clip: SheetClip) -> str:
    quality = clip.quality
    facts = [f"{part.replace('_', ' ')} {quality.share(part):.0%}" for part in NAMES.values()]
    longest_gap = max(quality.longest_gap[hand] for hand in HANDS)
    facts.append(f"longest gap {format_count(longest_gap, 'frame')}")
    facts += [format_count(quality.jumps, "jump")] if quality.jumps else []
    facts += ["several people"] if quality.has_other_people else []
    facts += [f"turned by {quality.rotation}°"] if quality.rotation else []
    try:
        pictures = "".join(_figure(time, picture) for time, picture in draw_clip(clip))
    except UnreadableClip as error:
        pictures = f"<p>{escape(str(error))}</p>"
    text = f"{format_count(quality.frames, 'frame')}: {', '.join(facts)}"
    return f"<h2>{escape(clip.id)}</h2><p>{escape(text)}</p>{pictures}"


def _figure(time: float, picture: "Image") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = f"{time:.2f} s"
    image = f'<img alt="frame at {text}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def draw_clip(clip: SheetClip) -> Iterator[tuple[float, "Image"]]:
    """The time and the picture of some frames of a clip, with points and boxes drawn in.

    Raises:
        UnreadableClip: the video cannot be read any more.
    """
    name = clip.id.partition("/")[2]
    with h5py.File(clip.arrays_file, "r") as handle:
        boxes = handle[f"{name}/boxes"][()]
    points = _read_points(clip.features_file, name)
    chosen = set(np.linspace(0, len(boxes) - 1, min(NUM_FRAMES, len(boxes))).round().astype(int).tolist())
    for index, frame in enumerate(decode_cut(clip.cut)):
        if index in chosen:
            own_points = None if points is None else points[index]
            yield frame.time, draw_landmarks(frame.image, own_points, boxes[index], PICTURE_WIDTH)
            if index == max(chosen):
                return


def _read_points(file: Path, clip: str) -> np.ndarray | None:
    """The points of a clip in pixels, (T, 104, 2), NaN where they are missing; None if the layout has no pixels."""
    with h5py.File(file, "r") as handle:
        if read_layout(handle) != LAYOUT_DESCRIPTION:
            return None
        dataset = handle[clip]
        values = dataset[()].astype(float).reshape(len(dataset), -1, 2)
        is_missing = (values == 0).all(axis=2)
        points = values * dataset.attrs["scale"] + dataset.attrs["center"]
        points[is_missing] = np.nan
        return np.asarray(points)


def draw_landmarks(
    image: np.ndarray, points: np.ndarray | None, boxes: np.ndarray | None = None, width: int | None = None
) -> "Image":
    """A picture of a frame with the points (104, 2) and the boxes (3, 3) of face, left and right hand drawn in.

    Args:
        width: of the picture in pixels; that of the frame by default.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    scale = (width or picture.width) / picture.width
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    draw = ImageDraw.Draw(picture)
    radius = max(1, picture.width // 400)
    for part, start in POINT_OFFSETS.items() if points is not None else ():
        for x, y in scale * points[start : start + NUM_POINTS[part]]:  # type: ignore[index]
            if np.isfinite(x):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[part])
    for part, (x, y, side) in zip(BOX_PARTS, scale * boxes if boxes is not None else (), strict=False):
        if np.isfinite(side):
            corners = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            draw.rectangle(corners, outline=COLORS[part], width=radius)
    return picture
