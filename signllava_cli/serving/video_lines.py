"""Translates a video segment by segment, and gives one line for each, and for the progress before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from tempfile import TemporaryDirectory

import numpy as np
from pydantic import BaseModel

from signllava_cli.api.translator import SignLlava
from signllava_cli.api.video_features import VideoClip
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.prepare.extract.video_cuts import VideoCut, read_video_info
from signllava_cli.serving.clip_lines import ClipLine, Source, select_context, translate_line
from signllava_cli.serving.recent_clips import RecentClips
from signllava_cli.serving.video_process import VideoProcess, VideoProgress

MAX_FPS = 60  # with the limit of seconds that of frames: a header may declare no length, or a wrong one
MAX_PIXELS = 4096 * 4096  # of a frame


class Landmarks(BaseModel):
    """The landmarks of a segment, to be drawn over the video.

    `width`, `height`: of the picture in pixels. `times`: of the frames, in seconds. `points`: of each frame x and y
    of 25 points of the body, 21 of the right hand, 21 of the left hand and 37 of the face, in pixels; -1 if missing.
    """

    width: int
    height: int
    times: list[float]
    points: list[list[int]]


class VideoLine(ClipLine):
    """The translation of a segment, and the landmarks of its frames."""

    landmarks: Landmarks | None = None


class ProgressLine(BaseModel):
    """How many frames were read, of about `of` (None: unknown). `done`: the answer is complete.

    `short_movements`: that were no segment, because they were too short.
    """

    frames: int
    of: int | None = None
    short_movements: int = 0
    done: bool = False


@dataclass(frozen=True)
class VideoRequest:
    """A video to translate. `name`: for messages. `max_seconds`: of the cut. `folder`: to be removed afterwards."""

    name: str
    cut: VideoCut
    at_pauses: bool
    max_seconds: float
    folder: TemporaryDirectory[str] | None = None


def translate_video(
    model: SignLlava,
    recent: RecentClips,
    process: VideoProcess,
    request: VideoRequest,
    window: int,
    prelude: int,
    source: Source,
) -> Iterator[VideoLine | ProgressLine]:
    """Translate a video as one recording. Its first frame is read before this returns.

    Raises:
        UserError: the video is refused.
    """
    try:
        num_expected = _check_header(request, process.num_passes)
        messages = process.read(request.cut, request.at_pauses, int(MAX_FPS * request.max_seconds))
        first = next(messages)
    except (UnreadableClip, UserError) as error:
        if request.folder is not None:
            request.folder.cleanup()
        raise UserError(_refusal(request, error) if isinstance(error, UnreadableClip) else str(error)) from None

    def translate_segments() -> Iterator[VideoLine | ProgressLine]:
        texts: list[str] = []
        progress = VideoProgress(0)
        try:
            for message in chain([first], messages):
                if isinstance(message, VideoProgress):
                    progress = message
                    yield ProgressLine(frames=message.frames, of=num_expected)
                    continue
                line = _describe_segment(message, len(texts) + 1, request)
                context = [] if source == "none" else select_context(texts, len(texts), window, prelude)
                if message.error is None:
                    translate_line(line, model, recent, message.features, context, prelude)
                texts.append(line.text)
                yield line
        except (UnreadableClip, UserError) as error:
            reason = _refusal(request, error) if isinstance(error, UnreadableClip) else str(error)
            yield VideoLine(number=len(texts) + 1, of=None, clip=request.name, error=reason)
        else:
            yield ProgressLine(frames=progress.frames, short_movements=progress.num_short, done=True)
        finally:
            messages.close()
            if request.folder is not None:
                request.folder.cleanup()

    return translate_segments()


def _check_header(request: VideoRequest, num_passes: int) -> int | None:
    """The number of frames that the header declares for the cut, in all passes.

    Raises:
        UnreadableClip: the video cannot be opened, or the cut or its frames are too large.
    """
    cut, info = request.cut, read_video_info(request.cut.file)
    if info.width * info.height > MAX_PIXELS:
        raise UnreadableClip(f"has frames of {info.width} x {info.height} pixels, more than {MAX_PIXELS:,} pixels")
    ends = [end for end in (cut.end, info.seconds) if end is not None]
    if not ends:
        return None
    seconds = min(ends) - (cut.start or 0.0)
    if seconds > request.max_seconds:
        raise UnreadableClip(
            f"{seconds:.0f} s are more than {request.max_seconds:g} s; choose a start and an end, or raise "
            "`signllava serve --max-video-seconds`"
        )
    return round(seconds * info.fps) * num_passes or None


def _refusal(request: VideoRequest, error: UnreadableClip) -> str:
    return f"{escape_unprintable(request.name)}: {error}."


def _describe_segment(clip: VideoClip, number: int, request: VideoRequest) -> VideoLine:
    """The line of a segment, still without its text."""
    name = request.name if not request.at_pauses else f"{clip.start:.1f} to {clip.end:.1f} s"
    line = VideoLine(number=number, of=None if request.at_pauses else 1, clip=name, error=clip.error)
    line.start, line.end = clip.start, clip.end
    width, height = clip.size
    points = np.where(np.isnan(clip.points), -1, clip.points.round()).astype(int)  # (T, 104, 2)
    line.landmarks = Landmarks(
        width=width,
        height=height,
        times=clip.times.round(3).tolist(),
        points=points.reshape(len(points), -1).tolist(),
    )
    return line
