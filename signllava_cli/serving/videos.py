"""The videos of recordings and clips that the page plays."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from signllava_cli.data.annotations import Clip, natural_sort_key
from signllava_cli.files import MAX_NAME_BYTES

SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")


def list_videos(folder: Path) -> dict[str, Path]:
    """Name -> file, of the videos in `folder`, in natural order."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()]
    return {file.name: file for file in sorted(files, key=lambda file: natural_sort_key(file.name))}


class Videos:
    """`RECORDING.mp4` or `CLIP.mp4` (or another suffix) in `folder`. Clips that share a name have no video."""

    def __init__(self, folder: Path | None, clips: Iterable[Clip]) -> None:
        self._folder = folder
        self._count = Counter(clip.name for clip in clips) if folder is not None else Counter()

    def of_recording(self, recording: str) -> Path | None:
        """The video of a recording. The name must be one of the dataset, never a path from a request."""
        return self._find(recording)

    def of_clip(self, clip: Clip) -> Path | None:
        """The video of one clip."""
        return self._find(clip.name) if self._count[clip.name] == 1 else None

    def _find(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        if len(name.encode()) > MAX_NAME_BYTES - max(map(len, SUFFIXES)):
            return None
        candidates = (self._folder / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((file for file in candidates if file.parent == self._folder and file.is_file()), None)
