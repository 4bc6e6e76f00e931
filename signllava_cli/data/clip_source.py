"""Where one clip's array lies outside, and what keeps it from being packed."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClipSource:
    """A clip's array: `file` in `format`; `key` names it in a file of several, and is empty for the only one."""

    file: Path
    format: str
    key: str = ""


class UnreadableClip(Exception):
    """This clip cannot be packed; the message says why, without its name and its file's."""
