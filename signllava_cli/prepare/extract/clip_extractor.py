"""What makes a stream from videos: an extractor, which turns the video of one clip into vectors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from signllava_cli.data.feature_files import ClipFeatures
from signllava_cli.prepare.extract.video_cuts import VideoCut, VideoFrame, decode_cut


@dataclass(frozen=True)
class ClipVideo:
    """The video of one clip. `boxes` (T, 3, 3) and `times` (T,) are those of its landmarks, where they are known."""

    recording: str
    clip: str
    cut: VideoCut
    boxes: np.ndarray | None = None
    times: np.ndarray | None = None
    after_frame: Callable[[], None] = lambda: None

    def frames(self) -> Iterator[VideoFrame]:
        """The frames of the clip, upright, in order; each counts for the progress bar.

        Raises:
            UnreadableClip: the video is damaged, or has no such frames.
        """
        for frame in decode_cut(self.cut):
            yield frame
            self.after_frame()


@dataclass(frozen=True)
class ExtractedClip:
    """What is stored of a clip: `features` go into the shards, `arrays` and `quality` beside them."""

    features: ClipFeatures
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    quality: Mapping[str, object] | None = None


class ClipExtractor(Protocol):
    """Makes the features of one stream, clip by clip, in one process."""

    def extract(self, video: ClipVideo) -> ExtractedClip:
        """The features of a clip, (T, width), a vector a frame or a window.

        Raises:
            UnreadableClip: the clip has to be left out, for the reason of the message.
        """


class ExtractorSettings(Protocol):
    """The settings of an extractor: a frozen dataclass, which is sent to each worker process."""

    @property
    def needs_boxes(self) -> bool:
        """Whether the boxes that stream pose has stored are needed."""

    def fingerprint(self) -> dict[str, object]:
        """All that the numbers depend on beside the video; clips are extracted again when it changes."""

    def open(self) -> ClipExtractor:
        """Load the model, in a worker process.

        Raises:
            UserError: it cannot be loaded.
        """
