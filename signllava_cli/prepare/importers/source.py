"""The rows of a source of annotations, before they are validated."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ClipOrder = Literal["time", "name"]


@dataclass(frozen=True)
class SourceClip:
    """One row of a source: every field is the text of a cell; None if the source has no such column.

    `where` is `file:line`. Without `name` the clip is named after its recording and times. Times are seconds or
    `HH:MM:SS.mmm`; without `end` it is computed from `start` and `duration`. Clips are sorted by `order` (a number),
    else by `start`, else they keep the order of the rows. `keywords` is a comma-separated list, valid only if
    `keyword_state` is `OK` or None. `columns` are the cells that identify the clip or its video, by column name.
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
    keyword_state: str | None = None
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RejectedRow:
    """A row, or one text of a row, that is not imported: `file:line`, the clip if known, and why.

    `reason` is counted; `text` is the invalid text.
    """

    where: str
    clip: str
    reason: str
    text: str

    def describe(self) -> str:
        """Location, reason and text, for a message."""
        return f"{self.where}: {self.reason}, {self.text!r}"


def _single_file(path: Path) -> list[Path]:
    return [path]


@dataclass(frozen=True)
class Source:
    """A format of annotations, and the options to read it with.

    `rows` reads a file or a folder; `files` lists the files of that path. With `has_split_column` each row has its
    own split. `order` of the clips of a recording: by the order key of `SourceClip`, or by natural sort of names.
    """

    name: str
    rows: Callable[[Path], Iterable[SourceClip | RejectedRow]]
    files: Callable[[Path], list[Path]] = _single_file
    config: dict[str, Any] = field(default_factory=dict)
    has_split_column: bool = False
    order: ClipOrder = "time"
