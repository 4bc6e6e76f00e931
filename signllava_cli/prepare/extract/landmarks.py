"""Finds the landmarks of a signer in the frames of one clip with MediaPipe's HolisticLandmarker."""

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND
from signllava_cli.errors import UserError, first_line, require_extra
from signllava_cli.prepare.extract.video_cuts import VideoFrame

if TYPE_CHECKING:
    from mediapipe.tasks.python.vision import HolisticLandmarker, PoseLandmarker

PARTS = (BODY, RIGHT_HAND, LEFT_HAND, FACE)
PEOPLE_CHECK_SECONDS = 2.0  # of video between two frames in which people are counted
MAX_PEOPLE = 3  # more are not counted
BODY_MODELS = ("pose_detector.tflite", "pose_landmarks_detector.tflite")  # inside the holistic model file


@dataclass(frozen=True)
class FrameLandmarks:
    """What was found in one frame. `parts`: part -> float64 (points, 2), in pixels; missing parts have no entry.

    `people`: the number of people, if they were counted in this frame. `size`: width and height in pixels.
    """

    time: float
    parts: Mapping[str, np.ndarray]
    size: tuple[int, int]
    people: int | None = None


def require_mediapipe() -> None:
    """Check that MediaPipe and the system libraries that it needs are installed.

    Raises:
        UserError: they are not; the message says how to install them.
    """
    require_extra("video", "Finding landmarks", "av", "mediapipe")
    _import_mediapipe()


def _import_mediapipe() -> Any:
    try:
        with _quiet_stderr():
            import mediapipe
            import mediapipe.tasks.python.vision  # its C library is loaded with the first landmarker
    except (ImportError, OSError) as error:
        raise _library_error(error) from None
    return mediapipe


def _library_error(error: BaseException) -> UserError:
    return UserError(
        f"MediaPipe cannot be loaded ({first_line(error)}); on Debian and Ubuntu: apt install libegl1 libgles2 libgl1"
    )


class LandmarkFinder:
    """Finds landmarks frame by frame; the `with` block is one clip, whose frames are tracked from one to the next.

    Raises:
        UserError: the model file is damaged, or a system library is missing.
    """

    def __init__(self, model: Path, count_people: bool = True) -> None:
        self._model, self._count_people = model, count_people
        self._body_model: bytes | None = None

    def __enter__(self) -> "LandmarkFinder":
        mediapipe = _import_mediapipe()
        self._to_image = lambda image: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        try:
            with _quiet_stderr():
                self._landmarker, self._people = self._open(mediapipe.tasks)
        except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"--pose-model {self._model} is not a model of HolisticLandmarker ({first_line(error)})."
            ) from None
        except (ImportError, OSError) as error:
            raise _library_error(error) from None
        self._milliseconds, self._next_count = -1, 0.0
        self._first_time: float | None = None
        return self

    def _open(self, tasks: Any) -> "tuple[HolisticLandmarker, PoseLandmarker | None]":
        """The landmarker, and the one that finds several people."""
        vision = tasks.vision
        options = vision.HolisticLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(self._model)), running_mode=vision.RunningMode.VIDEO
        )
        landmarker = vision.HolisticLandmarker.create_from_options(options)
        if not self._count_people:
            return landmarker, None
        if self._body_model is None:
            self._body_model = _body_model(self._model)
        options = vision.PoseLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=self._body_model), num_poses=MAX_PEOPLE
        )
        return landmarker, vision.PoseLandmarker.create_from_options(options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _quiet_stderr():
            self._landmarker.close()
            if self._people is not None:
                self._people.close()

    def find(self, frame: VideoFrame) -> FrameLandmarks:
        """The landmarks of the next frame of the clip.

        Raises:
            UnreadableClip: MediaPipe fails.
        """
        seconds = frame.time - (frame.time if self._first_time is None else self._first_time)
        self._milliseconds = max(self._milliseconds + 1, round(1000 * seconds))  # timestamps must increase
        image = self._to_image(frame.image)
        height, width = frame.image.shape[:2]
        is_first = self._first_time is None
        try:
            with _quiet_stderr() if is_first else nullcontext():
                found = self._landmarker.detect_for_video(image, self._milliseconds)
                people = None
                if self._people is not None and seconds >= self._next_count:
                    self._next_count = seconds + PEOPLE_CHECK_SECONDS
                    people = len(self._people.detect(image).pose_landmarks)
        except RuntimeError as error:
            raise UnreadableClip(f"MediaPipe fails at {frame.time:.3f} s: {first_line(error)}") from None
        self._first_time = frame.time if self._first_time is None else self._first_time
        points = {part: getattr(found, part) for part in PARTS}
        parts = {
            part: np.array([(point.x, point.y) for point in part_points]) * (width, height)
            for part, part_points in points.items()
            if part_points
        }
        return FrameLandmarks(frame.time, parts, (width, height), people)


def _body_model(model: Path) -> bytes:
    """The model of the body alone, which finds several people, out of the file of the holistic model."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name in BODY_MODELS:
            target.writestr(name, source.read(name))
    return buffer.getvalue()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what the C++ code of MediaPipe and TensorFlow Lite logs at the first frame; it cannot be turned off.

    https://github.com/google-ai-edge/mediapipe/issues/5737
    """
    kept = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
