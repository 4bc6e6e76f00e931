"""What a source of annotations says, before anything of it is judged."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ClipOrder = Literal["time", "name"]


@dataclass(frozen=True)
class SourceClip:
    """One row of a source, every field as the text that stands there; None where the source has no such column.

    `where` is `file:line`. Without `name` the clip is named after its recording and times. Times are seconds or
    `HH:MM:SS.mmm`; without `end`, `start` and `duration` give it. Clips are ordered by `order` (a number), else by
    `start`, else as they stand. `keywords` is a comma-separated list that holds only where `state` is `OK` or None.
    `columns` are the cells that identify the clip or its video, by the names of their columns.
    """

    where: str
    recording: str
    name: str | None
    translation: str
    start: str | None = None
    end: str | None = None
    duration: str | None = None
    order: str | None = None
    paraphrases: tuple[str, ...] = ()
    keywords: str = ""
    state: str | None = None
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RejectedRow:
    """A row, or one text of a row, that is not taken over: where it stands, its clip if known, and why.

    `reason` is counted; `what` is the text in question.
    """

    where: str
    clip: str
    reason: str
    what: str

    def told(self) -> str:
        """Where and why, in one line."""
        return f"{self.where}: {self.reason}, {self.what!r}"


def _single_file(path: Path) -> list[Path]:
    return [path]


@dataclass(frozen=True)
class Source:
    """A kind of annotations, and the settings it is read with.

    `rows` reads what the user named, a file or a folder; `files` lists the files behind it. With
    `has_split_column` each row tells its own split. `order` is that of the clips of a recording: by the order key
    of `SourceClip`, or by the natural sort of their names.
    """

    name: str
    rows: Callable[[Path], Iterable[SourceClip | RejectedRow]]
    files: Callable[[Path], list[Path]] = _single_file
    config: dict[str, Any] = field(default_factory=dict)
    has_split_column: bool = False
    order: ClipOrder = "time"
