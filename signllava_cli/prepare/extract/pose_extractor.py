"""The extractor of stream pose."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from signllava_cli.files import sha256_file
from signllava_cli.prepare.extract.clip_extractor import ClipVideo, ExtractedClip
from signllava_cli.prepare.extract.landmarks import LandmarkFinder, require_mediapipe
from signllava_cli.prepare.extract.pose_features import LAYOUT_NAMES, PoseLayout, extract_pose


@dataclass(frozen=True)
class PoseSettings:
    """`model`: the file of HolisticLandmarker. `min_body`: the least share of frames with a body."""

    model: Path
    layout: PoseLayout = "mediapipe"
    min_body: float = 0.8
    needs_boxes: bool = False

    def fingerprint(self) -> dict[str, object]:
        """All that the numbers depend on beside the video."""
        return {
            "mediapipe": version("mediapipe"),
            "model_sha256": sha256_file(self.model),
            "layout": LAYOUT_NAMES[self.layout],
            "min_body": self.min_body,
        }

    def open(self) -> "PoseExtractor":
        """Load MediaPipe."""
        require_mediapipe()
        return PoseExtractor(self)


class PoseExtractor:
    """Stores the features of a clip, and the boxes and times by which crops are cut."""

    def __init__(self, settings: PoseSettings) -> None:
        self._settings = settings
        self._finder = LandmarkFinder(settings.model)

    def extract(self, video: ClipVideo) -> ExtractedClip:
        """The features of a clip, float16 (T, 208). Errors: see `extract_pose`."""
        settings = self._settings
        pose = extract_pose(video.cut, self._finder, settings.layout, settings.min_body, video.after_frame)
        return ExtractedClip(pose.features, {"boxes": pose.boxes, "times": pose.times}, pose.quality.to_json())
