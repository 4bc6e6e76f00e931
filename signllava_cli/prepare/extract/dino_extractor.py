"""The extractor of stream dino: vectors of an image backbone for the crops of face, left and right hand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, to_float16
from signllava_cli.errors import format_count
from signllava_cli.prepare.extract.clip_extractor import ClipVideo, ExtractedClip
from signllava_cli.prepare.extract.crops import MARGIN, Cropper
from signllava_cli.prepare.extract.image_backbone import ImageBackbone, backbone_name

BATCH_FRAMES = 64  # never of two clips, so that a clip's numbers do not depend on other clips


def choose_device() -> str:
    """The GPU of this rank, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@dataclass(frozen=True)
class DinoSettings:
    """`face`, `hands`: backbones, as folders or hub ids. `device`: such as `cuda:0`. `digests`: of their weights."""

    face: str
    hands: str
    device: str
    digests: tuple[str, str] = field(default=("", ""))
    needs_boxes: bool = True

    @classmethod
    def load(cls, face: str, hands: str | None) -> "DinoSettings":
        """The settings, with the digests of the weights.

        Raises:
            UserError: a backbone cannot be loaded.
        """
        digests = {location: ImageBackbone(location, "cpu").digest() for location in {face, hands or face}}
        return cls(face, hands or face, choose_device(), (digests[face], digests[hands or face]))

    @property
    def layout(self) -> str:
        """The name of what the numbers are: vectors of two models cannot be mixed."""
        names = [
            f"{backbone_name(each)}@{digest}"
            for each, digest in zip((self.face, self.hands), self.digests, strict=True)
        ]
        return "crops face,left,right: " + " ".join(dict.fromkeys(names))

    def fingerprint(self) -> dict[str, object]:
        """All that the numbers depend on beside the video and the boxes."""
        return {"layout": self.layout, "margin": MARGIN}

    def open(self) -> "DinoExtractor":
        """Load the backbones."""
        return DinoExtractor(self)


class DinoExtractor:
    """Vectors of face, left and right hand, side by side: float16 (T, 3 * width), or of two widths."""

    def __init__(self, settings: DinoSettings) -> None:
        import torch

        torch.set_num_threads(1)  # there is a process per core; and the same bytes with any number of them
        self._layout = settings.layout
        self._face = ImageBackbone(settings.face, settings.device)
        is_same = settings.hands == settings.face
        self._hands = self._face if is_same else ImageBackbone(settings.hands, settings.device)

    def extract(self, video: ClipVideo) -> ExtractedClip:
        """The vectors of a clip.

        Raises:
            UnreadableClip: the video cannot be read, or has other frames than those whose boxes were stored.
        """
        assert video.boxes is not None
        vectors = np.concatenate(list(self._vectors(video, video.boxes)))
        if len(vectors) != len(video.boxes):
            raise UnreadableClip(f"has {format_count(len(vectors), 'frame')}, but {len(video.boxes)} in stream pose")
        return ExtractedClip(ClipFeatures(to_float16(vectors), layout=self._layout))

    def _vectors(self, video: ClipVideo, boxes: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of vectors, float32 (frames, width)."""
        face, hands = Cropper(self._face.size, 1), Cropper(self._hands.size, 2)
        faces: list[np.ndarray] = []
        pairs: list[np.ndarray] = []
        for index, frame in enumerate(video.frames()):
            if index >= len(boxes):
                raise UnreadableClip(f"has more frames than the {len(boxes)} in stream pose")
            faces.append(face.crop(frame.image, boxes[index, :1]))
            pairs.append(hands.crop(frame.image, boxes[index, 1:]))
            if len(faces) == BATCH_FRAMES:
                yield self._run(faces, pairs)
                faces, pairs = [], []
        if faces:
            yield self._run(faces, pairs)

    def _run(self, faces: list[np.ndarray], pairs: list[np.ndarray]) -> np.ndarray:
        """float32 (frames, width), of the crops of some frames, (1, size, size, 3) and (2, size, size, 3) each."""
        of_hands = self._hands.vectors(np.concatenate(pairs)).reshape(len(pairs), -1)
        return np.concatenate([self._face.vectors(np.concatenate(faces)), of_hands], axis=1)
