"""Features of a video for a model: which of its streams can be made from a video, how, and the reader that does."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from signllava_cli.api.inputs import InvalidInput
from signllava_cli.api.signing_pauses import PauseCutter, Segment
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.keypoints import LAYOUT_DESCRIPTION, gather_landmarks
from signllava_cli.data.sign_llava_pose import SIGN_LLAVA
from signllava_cli.prepare.extract.clip_extractor import ClipVideo
from signllava_cli.prepare.extract.dino_extractor import DinoSettings
from signllava_cli.prepare.extract.image_backbone import backbone_name
from signllava_cli.prepare.extract.landmarks import FrameLandmarks, LandmarkFinder, require_mediapipe
from signllava_cli.prepare.extract.pose_extractor import PoseSettings
from signllava_cli.prepare.extract.pose_features import PoseClip, PoseLayout, extract_pose, pose_of_landmarks
from signllava_cli.prepare.extract.pose_model import cached_model_file, find_pose_model
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut

POSE_LAYOUTS: dict[str, PoseLayout] = {LAYOUT_DESCRIPTION: "mediapipe", SIGN_LLAVA: "sign-llava"}
DINO_LAYOUT = re.compile(r"crops face,left,right: (.+?)@[0-9a-f]{12}(?: (.+?)@[0-9a-f]{12})?")


@dataclass(frozen=True)
class VideoOptions:
    """What `translate_video` needs to know beside the checkpoint.

    `pose_model`: the file of HolisticLandmarker; None: the official one in the user's cache. `dino`, `dino_hands`:
    the image backbones of stream dino, folders or hub ids; None: those that the checkpoint names. `streams`: to use;
    None: all of the model.
    """

    pose_model: Path | None = None
    dino: str | None = None
    dino_hands: str | None = None
    streams: tuple[str, ...] | None = None


@dataclass(frozen=True)
class VideoClip:
    """A clip of a video, or a segment between two pauses.

    `start`, `end`: seconds. `features`: stream -> (T, width); empty if there is an `error`. `times`: float64 (T,).
    `points`: float64 (T, 104, 2) in pixels of a picture of `size` (width, height), NaN where they are missing.
    """

    start: float
    end: float
    features: Mapping[str, np.ndarray]
    times: np.ndarray
    points: np.ndarray
    size: tuple[int, int]
    error: str | None = None


@dataclass(frozen=True)
class VideoStreams:
    """The streams that are made from a video, and how. It can be sent to another process.

    `landmarks`: how they are found, which crops need too. `pose`: the name of their stream. `dino`: stream ->
    settings.
    """

    landmarks: PoseSettings
    pose: str | None
    dino: Mapping[str, DinoSettings] = field(default_factory=dict)

    @property
    def num_passes(self) -> int:
        """How often each frame is decoded."""
        return 1 + len(self.dino)

    def open(self) -> "VideoReader":
        """Load MediaPipe and the backbones.

        Raises:
            UserError: they cannot be loaded.
        """
        return VideoReader(self)


def choose_video_streams(
    streams: Sequence[str], layouts: Mapping[str, str], options: VideoOptions | None = None
) -> VideoStreams:
    """How the streams of a model are made from a video.

    Args:
        streams: all that the model knows.
        layouts: those of its training, where known.

    Raises:
        InvalidInput: a stream cannot be made from a video, or only if something is named.
        UserError: the extra `video` is not installed, the landmark model is missing, or a backbone cannot be loaded.
    """
    options = options or VideoOptions()
    chosen = list(streams) if options.streams is None else list(options.streams)
    if unknown := [name for name in chosen if name not in streams]:
        raise InvalidInput(f"streams: the model knows no stream {unknown[0]!r}; it knows {', '.join(streams)}.")
    if not chosen:
        raise InvalidInput("streams: expected at least one.")
    kinds = {name: _kind(name, layouts.get(name)) for name in chosen}
    if others := [name for name, kind in kinds.items() if kind is None]:
        raise InvalidInput(_describe_impossible(others[0], [name for name, kind in kinds.items() if kind]))
    pose = next((name for name, kind in kinds.items() if kind == "pose"), None)
    if pose is not None and pose not in layouts:
        raise InvalidInput(
            f"Stream {pose}: the layout of its numbers in training is unknown, so it cannot be made from a video; "
            f"train with data of `signllava prepare extract` or `pack`, or with --set streams.{pose}.layout=..."
        )
    require_mediapipe()
    layout: PoseLayout = POSE_LAYOUTS[layouts[pose]] if pose is not None else "mediapipe"
    landmarks = PoseSettings(_find_model(options.pose_model), layout)
    dino = {
        name: _choose_backbones(name, layouts.get(name), options) for name, kind in kinds.items() if kind == "dino"
    }
    return VideoStreams(landmarks, pose, dino)


def _kind(stream: str, layout: str | None) -> str | None:
    """How a stream is made, `pose` or `dino`: by the layout of its numbers, or by its name if that is unknown."""
    if layout is None:
        return stream if stream in ("pose", "dino") else None
    if layout in POSE_LAYOUTS:
        return "pose"
    return "dino" if DINO_LAYOUT.fullmatch(layout) else None


def _describe_impossible(stream: str, possible: Sequence[str]) -> str:
    message = f"Stream {stream} cannot be made from a video: extract it with its own tool, and translate the features"
    return f"{message}; or choose other streams only: {', '.join(possible)}." if possible else f"{message}."


def _find_model(file: Path | None) -> Path:
    if file is not None and not file.is_file():
        raise InvalidInput(f"pose_model: no such file, {file}.")
    if file is None and not cached_model_file().is_file():
        raise InvalidInput(
            f"pose_model must name the file of the landmark model; {cached_model_file().parent} lacks the official "
            "one, which `signllava prepare extract --download-pose-model` puts there."
        )
    return find_pose_model(file)


def _choose_backbones(stream: str, layout: str | None, options: VideoOptions) -> DinoSettings:
    """The backbones that `options` or the layout name, if their weights are those of the layout."""
    match = DINO_LAYOUT.fullmatch(layout or "")
    face, hands = (match[1], match[2]) if match else (None, None)
    chosen_face, chosen_hands = options.dino or face, options.dino_hands
    if chosen_face is None or (options.dino is None and "/" not in chosen_face):
        trained = f" of {layout}" if layout else ""
        raise InvalidInput(f"Stream {stream}: dino must name its image backbone{trained}: a folder, or a hub id.")
    if chosen_hands is None and hands is not None:
        if "/" not in hands:
            raise InvalidInput(f"Stream {stream}: dino_hands must name the backbone of its hands, {hands}: a folder.")
        chosen_hands = hands
    settings = DinoSettings.load(chosen_face, chosen_hands)
    if layout is not None and settings.layout != layout:
        raise InvalidInput(
            f"Stream {stream}: the model was trained on {layout}, but {backbone_name(chosen_face)} gives "
            f"{settings.layout}; dino and dino_hands must name the backbones of its training."
        )
    return settings


class VideoReader:
    """Makes the features of clips, one after the other, by the code of `prepare extract`.

    `num_short`: the movements in the last video cut at pauses that were too short to be a segment.
    """

    def __init__(self, streams: VideoStreams) -> None:
        self._streams, self.num_short = streams, 0
        self._finder = LandmarkFinder(streams.landmarks.model, count_people=False)
        self._dino = {name: settings.open() for name, settings in streams.dino.items()}

    def read(self, cut: VideoCut, after_frame: Callable[[], None] = lambda: None) -> VideoClip:
        """The features of a cut, those that `prepare extract` would store.

        Args:
            after_frame: called after each frame of each pass.

        Raises:
            UnreadableClip: it would leave the clip out, for the reason of the message.
        """
        settings = self._streams.landmarks
        pose = extract_pose(cut, self._finder, settings.layout, settings.min_body, after_frame)
        return self._make_clip(cut, pose, after_frame)

    def read_segments(self, cut: VideoCut, after_frame: Callable[[], None] = lambda: None) -> Iterator[VideoClip]:
        """The segments of a cut between pauses (see `PauseCutter`), each as soon as it has ended.

        One landmarker sees all frames, so numbers can differ slightly from those of `read` with the same times. A
        segment that `prepare extract` would leave out has an `error`.

        Raises:
            UnreadableClip: the video cannot be read, or nobody signs in it.
        """
        cutter, num_segments = PauseCutter(), 0
        with self._finder as finder:
            for frame in decode_cut(cut):
                for segment in cutter.add(finder.find(frame)):
                    num_segments += 1
                    yield self._read_segment(cut, segment, after_frame)
                after_frame()
            for segment in cutter.finish():
                num_segments += 1
                yield self._read_segment(cut, segment, after_frame)
        self.num_short = cutter.num_short
        if not num_segments:
            raise UnreadableClip("no signing found: no hand moves for long enough")

    def _read_segment(self, cut: VideoCut, segment: Segment, after_frame: Callable[[], None]) -> VideoClip:
        settings, frames = self._streams.landmarks, segment.frames
        segment_cut = VideoCut(cut.file, frames[0].time, cut.end if segment.end is None else segment.end)
        try:
            pose = pose_of_landmarks(frames, 0, settings.layout, settings.min_body)
            return self._make_clip(segment_cut, pose, after_frame)
        except UnreadableClip as error:
            return _describe(frames, {}, str(error))

    def _make_clip(self, cut: VideoCut, pose: PoseClip, after_frame: Callable[[], None]) -> VideoClip:
        features = {} if self._streams.pose is None else {self._streams.pose: pose.features.frames}
        video = ClipVideo("", "", cut, pose.boxes, pose.times, after_frame)
        for name, extractor in self._dino.items():
            features[name] = extractor.extract(video).features.frames
        return _describe(pose.frames, features)


def _describe(
    frames: list[FrameLandmarks], features: Mapping[str, np.ndarray], error: str | None = None
) -> VideoClip:
    times = np.array([frame.time for frame in frames])
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    landmarks = gather_landmarks([frame.parts for frame in frames])
    points = np.where(landmarks.is_visible[..., None], landmarks.xy, np.nan)
    return VideoClip(float(times[0]), float(times[-1]) + step, features, times, points, frames[0].size, error)


def read_cut(path: str | Path, start: float | None, end: float | None) -> VideoCut:
    """The cut that a caller asks for.

    Raises:
        InvalidInput: a time is not a finite number.
    """
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise InvalidInput(f"{name}: expected seconds, got {value!r}.")
    return VideoCut(Path(path).expanduser(), start, end)
