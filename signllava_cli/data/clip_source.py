"""The file of another tool that one clip's array is read from, and the error of a clip that cannot be read."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClipSource:
    """The source of a clip's array: a `file` in `format`, and the array's name `key`, empty if it is the only one."""

    file: Path
    format: str
    key: str = ""


class UnreadableClip(Exception):
    """A clip cannot be read; the message is the reason, without the names of the clip and its file."""
