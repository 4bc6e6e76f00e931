"""The videos that are shown beside the text: one of a recording, or one of a clip."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from signllava_cli.data.annotations import Clip

SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")


class Videos:
    """`RECORDING.mp4` or `CLIP.mp4` in a folder; a name that several of `clips` share names no video of a clip."""

    def __init__(self, folder: Path | None, clips: Iterable[Clip]) -> None:
        self._folder = folder
        self._count = Counter(clip.name for clip in clips) if folder is not None else Counter()

    def of_recording(self, recording: str) -> Path | None:
        """The video of a recording, whose name the dataset knows."""
        return self._find(recording)

    def of_clip(self, clip: Clip) -> Path | None:
        """The video of this clip alone."""
        return self._find(clip.name) if self._count[clip.name] == 1 else None

    def _find(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        candidates = (self._folder / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((file for file in candidates if file.parent == self._folder and file.is_file()), None)
