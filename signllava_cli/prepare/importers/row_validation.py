"""Which rows of a source are usable clips, and what of their texts is left out."""

from dataclasses import dataclass

from signllava_cli.data.annotations import Clip
from signllava_cli.data.words import is_placeholder
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip


@dataclass(frozen=True)
class AcceptedClip:
    """A clip of the layout (its position still 0), its order key, its row, and the texts it had to leave behind."""

    clip: Clip
    order: float
    where: str
    left_out: tuple[RejectedRow, ...]
    named_by_times: bool

    @property
    def file(self) -> str:
        """The file that the row stands in."""
        return self.where.rpartition(":")[0]


def validate_row(row: SourceClip) -> AcceptedClip | RejectedRow:
    """The clip that `row` describes, or why it describes none."""
    recording, name, text = row.recording.strip(), (row.name or "").strip(), row.translation.strip()
    try:
        _require_valid_name("recording", recording)
        if row.name is not None:
            _require_valid_name("clip", name)
    except ValueError as error:
        return RejectedRow(row.where, name, "name", str(error))
    if is_placeholder(text):
        return RejectedRow(row.where, name, "no text", text)
    try:
        start, end = _times(row)
        order = _number("order", row.order) if row.order is not None else start or 0.0
        if row.name is None:
            name = _name_by_times(recording, start, end)
    except ValueError as error:
        return RejectedRow(row.where, name, "time", str(error))
    left_out: list[RejectedRow] = []
    clip = Clip(
        recording=recording,
        name=name,
        position=0,
        translation=text,
        paraphrases=_paraphrases(row, name, text, left_out),
        keywords=_keywords(row, name, left_out),
        start=start,
        end=end,
        source={column.lower(): cell.strip() for column, cell in row.columns.items() if cell.strip()},
    )
    return AcceptedClip(clip, order, row.where, tuple(left_out), named_by_times=row.name is None)


def _name_by_times(recording: str, start: float | None, end: float | None) -> str:
    """`{recording}.{start}-{end}` in milliseconds of 8 digits, so that names sort in the order of time."""
    if start is None or end is None:
        raise ValueError("the clip has no start and end to be named after")
    return f"{recording}.{round(start * 1000):08d}-{round(end * 1000):08d}"


def parse_seconds(what: str, text: str) -> float:
    """Seconds written as a number or as `HH:MM:SS.mmm`.

    >>> seconds("start", "00:01:02.5")
    62.5

    Raises:
        ValueError: `text` is neither, or negative.
    """
    parts = text.split(":")
    if len(parts) > 3 or any(part.strip().startswith("-") for part in parts):
        raise ValueError(f"{what} is {text!r}")
    total = 0.0
    for part in parts:
        total = total * 60 + _number(what, part, text)
    return total


def _number(what: str, text: str, whole: str | None = None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ValueError(f"{what} is {whole or text!r}")
    return value


def _times(row: SourceClip) -> tuple[float | None, float | None]:
    start = None if row.start is None else parse_seconds("start", row.start)
    end = None if row.end is None else parse_seconds("end", row.end)
    if start is not None and end is None and row.duration is not None:
        end = round(
            start + parse_seconds("duration", row.duration), 3
        )  # 10.74 + 0.97 is 11.71, not 11.709999999999999
    if start is not None and end is not None and end <= start:
        raise ValueError(f"the clip ends at {end:g} s and begins at {start:g} s")
    return start, end


def _require_valid_name(what: str, name: str) -> None:
    """HDF5 takes `/` and `.` for paths, and the layout has a key of its own beside the clips."""
    if not name or "/" in name or name in (".", "clip_order") or not name.isprintable():
        raise ValueError(f"the {what} is called {name!r}")


def _paraphrases(row: SourceClip, name: str, translation: str, left_out: list[RejectedRow]) -> tuple[str, ...]:
    kept: list[str] = []
    for text in (paraphrase.strip() for paraphrase in row.paraphrases):
        if not text:
            continue  # a table has as many columns as its longest list of paraphrases
        if is_placeholder(text):
            reason = "paraphrase that says nothing"
        elif text == translation:
            reason = "paraphrase equal to the translation"
        elif text in kept:
            reason = "paraphrase given twice"
        else:
            kept.append(text)
            continue
        left_out.append(RejectedRow(row.where, name, reason, text))
    return tuple(kept)


def _keywords(row: SourceClip, name: str, left_out: list[RejectedRow]) -> tuple[str, ...]:
    cell = row.keywords.strip()
    if is_placeholder(cell):
        return ()
    if row.state is not None and row.state.strip() != "OK":
        what = f"{cell}, state {row.state.strip()}"
        left_out.append(RejectedRow(row.where, name, "keywords whose state is not OK", what))
        return ()
    if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "'\"":
        cell = cell[1:-1]
    words = (word.strip() for word in cell.split(","))
    return tuple(dict.fromkeys(word for word in words if not is_placeholder(word)))
