"""Decodes exactly the frames of a cut of a video, turned upright.

A seek of FFmpeg goes to a keyframe by decoding time, so frames are chosen by their presentation time after decoding.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import first_line, require_extra

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame as DecodedFrame
    from av.video.stream import VideoStream

# A playlist or a script of FFmpeg could open other files and addresses, so only containers of videos are opened.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,ogg,flv,asf",
}
SEEK_MARGINS = (0.0, 2.0, 10.0)  # seconds before the cut to seek to; if no keyframe is found there, the beginning
MAX_PIXELS = 2**26  # of a frame: twice those of 8K
MAX_SECONDS_BEYOND = 1.0  # a cut that ends so much after its video has a wrong time, or is of another video
MAX_MISSING_SECONDS = 0.5  # a video whose frames end so much before its declared end is truncated


@dataclass(frozen=True)
class VideoCut:
    """The frames of `file` with `start <= time < end`, in seconds from the video's beginning; None: without bound."""

    file: Path
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class VideoFrame:
    """A decoded frame. `time`: seconds. `image`: uint8 (H, W, 3), RGB, upright. `rotation`: degrees it was turned."""

    time: float
    image: np.ndarray
    rotation: int = 0


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video declares: `seconds` (None if it does not), frames per second, and pixels."""

    seconds: float | None
    fps: float
    width: int
    height: int


def require_av() -> None:
    """Check that the package that decodes videos is installed.

    Raises:
        UserError: it is not.
    """
    require_extra("video", "Decoding videos", "av", "PIL")


def read_video_info(file: Path) -> VideoInfo:
    """The header of a video.

    Raises:
        UnreadableClip: the file cannot be opened, or has no video stream.
    """
    with _open_video(file) as (container, stream):
        return VideoInfo(
            _declared_seconds(container, stream), float(stream.average_rate or 0), stream.width, stream.height
        )


def decode_cut(cut: VideoCut) -> Iterator[VideoFrame]:
    """The frames of `cut` in presentation order. Times count from the start of the file, as in players.

    A bound is compared with the time of a frame as float64, so that the quotient `frame / fps` is exact.

    Raises:
        UnreadableClip: the file is unreadable, damaged or truncated, has no video stream, no frame is in the cut,
            or the cut ends more than a second after the last frame.
    """
    with _open_video(cut.file) as (container, stream):
        clock = _Clock(container, stream)
        num_frames, last_time = 0, None
        for time, decoded in _decode_from(container, stream, clock, cut.start):
            if cut.end is not None and time >= cut.end:
                break
            last_time = time
            if cut.start is None or time >= cut.start:
                if decoded.is_corrupt:
                    raise UnreadableClip(f"is damaged: the frame at {time:.3f} s cannot be decoded completely")
                num_frames += 1
                yield _upright(time, decoded)
        else:
            _require_complete(container, stream, cut, last_time)
            if last_time is not None and num_frames and cut.end and cut.end - last_time > MAX_SECONDS_BEYOND:
                raise UnreadableClip(f"ends at {last_time:.3f} s, but the cut at {cut.end:g} s")
    if not num_frames:
        raise UnreadableClip(_describe_empty_cut(cut, last_time))


def _describe_empty_cut(cut: VideoCut, last_time: float | None) -> str:
    if last_time is None and not cut.start:
        return "has no frames"
    if cut.start is not None and cut.end is not None and cut.end <= cut.start:
        return f"the cut is empty: it starts at {cut.start:g} s and ends at {cut.end:g} s"
    bounds = f"from {cut.start or 0:g} s" + ("" if cut.end is None else f" to {cut.end:g} s")
    end = "" if last_time is None or (cut.start or 0) < last_time else f"; the last frame is at {last_time:.3f} s"
    return f"no frame is within the cut {bounds}{end}"


class _Clock:
    """Converts timestamps of a stream to seconds from the beginning of its file."""

    def __init__(self, container: "InputContainer", stream: "VideoStream") -> None:
        if stream.time_base is None:
            raise UnreadableClip("its video stream has no time base")
        self.time_base: Fraction = stream.time_base
        self.offset = Fraction(container.start_time or 0, 1_000_000)

    def seconds(self, frame: "DecodedFrame") -> float:
        """The presentation time of a frame; without one (AVI) its decoding time."""
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise UnreadableClip("its frames have no timestamps")
        return float(timestamp * self.time_base - self._rounded_offset())

    def timestamp(self, seconds: float) -> int:
        """The timestamp of the stream at or before `seconds`."""
        return math.floor((Fraction(seconds) + self._rounded_offset()) / self.time_base)

    def _rounded_offset(self) -> Fraction:
        """The start of the file, which FFmpeg gives in microseconds, in whole units of the time base."""
        return round(self.offset / self.time_base) * self.time_base


def _decode_from(
    container: "InputContainer", stream: "VideoStream", clock: _Clock, start: float | None
) -> Iterator[tuple[float, "DecodedFrame"]]:
    """Decode from a frame at or before `start`: seek to the last keyframe, or to an earlier one if that is later.

    FFmpeg compares decoding times when it seeks, so the first frame that can be shown may be after the target.
    """
    targets = [start - margin for margin in SEEK_MARGINS if start - margin > 0] if start else []
    for target in targets:
        with _as_unreadable():
            container.seek(clock.timestamp(target), stream=stream, backward=True)
        frames = _decode(container, stream, clock)
        first = next(frames, None)
        if first is not None and first[0] <= (start or 0):
            yield first
            yield from frames
            return
    if targets:
        with _as_unreadable():
            container.seek(min(0, stream.start_time or 0), stream=stream, backward=True)
    yield from _decode(container, stream, clock)


def _decode(
    container: "InputContainer", stream: "VideoStream", clock: _Clock
) -> Iterator[tuple[float, "DecodedFrame"]]:
    frames = container.decode(stream)
    time = None
    while True:
        where = "at its first frame" if time is None else f"after {time:.3f} s"
        with _as_unreadable(f"is damaged or truncated {where}"):
            frame = next(frames, None)
        if frame is None:
            return
        _require_size(frame.width, frame.height)
        time = clock.seconds(frame)
        yield time, frame


def _require_size(width: int, height: int) -> None:
    """A header of a few bytes can declare frames of gigabytes."""
    if width * height > MAX_PIXELS:
        raise UnreadableClip(f"has frames of {width} x {height}, and more than {MAX_PIXELS:,} pixels are not read")


def _require_complete(
    container: "InputContainer", stream: "VideoStream", cut: VideoCut, last_time: float | None
) -> None:
    """Check that the frames did not end before both the cut and the video should end."""
    declared = _declared_seconds(container, stream)
    if declared is None:
        return
    expected = declared if cut.end is None else min(declared, cut.end)
    if expected - (last_time or 0) > MAX_MISSING_SECONDS + float(1 / (stream.average_rate or 1)):
        raise UnreadableClip(
            f"is truncated: its frames end at {last_time or 0:.3f} s, although its header declares {declared:.3f} s"
        )


def _declared_seconds(container: "InputContainer", stream: "VideoStream") -> float | None:
    """When the frames should end; None if the header does not say it of this stream, but of a longer one perhaps."""
    if stream.duration and stream.time_base:
        offset = (stream.start_time or 0) * stream.time_base - Fraction(container.start_time or 0, 1_000_000)
        return float(stream.duration * stream.time_base) + max(float(offset), 0.0)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def _upright(time: float, decoded: "DecodedFrame") -> VideoFrame:
    """FFmpeg gives the angle by which a player must turn the frame counterclockwise, and does not turn it."""
    turns = round(decoded.rotation / 90) % 4
    image = decoded.to_ndarray(format="rgb24")
    return VideoFrame(time, np.ascontiguousarray(np.rot90(image, turns)), 90 * turns)


@contextlib.contextmanager
def _open_video(file: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    import av

    with contextlib.ExitStack() as stack:
        with _as_unreadable():
            container = stack.enter_context(av.open(f"file:{file}", options=OPEN_OPTIONS))
        if not container.streams.video:
            raise UnreadableClip("has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnreadableClip("its video stream is of an unknown format")
        _require_size(stream.width, stream.height)
        stream.codec_context.thread_count = 1  # each process decodes one video
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


@contextlib.contextmanager
def _as_unreadable(what: str = "cannot be read as a video") -> Iterator[None]:
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnreadableClip(f"{what}: {reason}") from None
