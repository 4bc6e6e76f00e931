"""Validates the rows of a source, and skips invalid keywords and paraphrases."""

from dataclasses import dataclass

from signllava_cli.data.annotations import MAX_SECONDS, Clip
from signllava_cli.data.words import is_placeholder
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip


@dataclass(frozen=True)
class AcceptedClip:
    """A clip (position 0; sorting sets it), its order key, the location of its row, and its skipped texts."""

    clip: Clip
    order: float
    where: str
    skipped_texts: tuple[RejectedRow, ...]
    is_named_by_times: bool

    @property
    def file(self) -> str:
        """The file of the row."""
        return self.where.rpartition(":")[0]


def validate_row(row: SourceClip) -> AcceptedClip | RejectedRow:
    """The clip of a valid row, else the reason why it is invalid."""
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
        start, end = _parse_times(row)
        order = _parse_number("order", row.order) if row.order is not None else start or 0.0
        if row.name is None:
            name = _name_by_times(recording, start, end)
    except ValueError as error:
        return RejectedRow(row.where, name, "time", str(error))
    skipped: list[RejectedRow] = []
    clip = Clip(
        recording=recording,
        name=name,
        position=0,
        translation=text,
        paraphrases=_parse_paraphrases(row, name, text, skipped),
        keywords=_parse_keywords(row, name, skipped),
        start=start,
        end=end,
        source={column.lower(): cell.strip() for column, cell in row.columns.items() if cell.strip()},
    )
    return AcceptedClip(clip, order, row.where, tuple(skipped), is_named_by_times=row.name is None)


def _name_by_times(recording: str, start: float | None, end: float | None) -> str:
    """`{recording}.{start}-{end}` in milliseconds of 8 digits, so that names sort by time."""
    if start is None or end is None:
        raise ValueError("the clip has no start and end for its name")
    return f"{recording}.{round(start * 1000):08d}-{round(end * 1000):08d}"


def parse_seconds(field: str, text: str) -> float:
    """Seconds written as a number or as `HH:MM:SS.mmm`.

    >>> parse_seconds("start", "00:01:02.5")
    62.5

    Raises:
        ValueError: `text` is neither, or negative.
    """
    parts = text.split(":")
    if len(parts) > 3 or any(part.strip().startswith("-") for part in parts):
        raise ValueError(f"{field} is {text!r}")
    total = 0.0
    for part in parts:
        total = total * 60 + _parse_number(field, part, text)
    return total


def _parse_number(field: str, text: str, full_text: str | None = None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ValueError(f"{field} is {full_text or text!r}")
    return value


def _parse_times(row: SourceClip) -> tuple[float | None, float | None]:
    start = None if row.start is None else parse_seconds("start", row.start)
    end = None if row.end is None else parse_seconds("end", row.end)
    if start is not None and end is None and row.duration is not None:
        end = round(start + parse_seconds("duration", row.duration), 3)  # 10.74 + 0.97 is 11.709999999999999
    if latest := next((time for time in (start, end) if time is not None and time >= MAX_SECONDS), None):
        raise ValueError(f"the clip starts or ends at {latest:g} s")
    if start is not None and end is not None and end <= start:
        raise ValueError(f"the clip ends at {end:g} s and begins at {start:g} s")
    return start, end


def _require_valid_name(kind: str, name: str) -> None:
    """`/`, `.` and `..` are syntax of paths, and `clip_order` is a key beside the clips."""
    if not name or "/" in name or name in (".", "..", "clip_order") or not name.isprintable():
        raise ValueError(f"the name of the {kind} is {name!r}")


def _parse_paraphrases(row: SourceClip, name: str, translation: str, skipped: list[RejectedRow]) -> tuple[str, ...]:
    paraphrases: list[str] = []
    for text in (paraphrase.strip() for paraphrase in row.paraphrases):
        if not text:
            continue  # every row has as many columns as the longest list of paraphrases
        if is_placeholder(text):
            reason = "placeholder paraphrase"
        elif text == translation:
            reason = "paraphrase equal to the translation"
        elif text in paraphrases:
            reason = "duplicate paraphrase"
        else:
            paraphrases.append(text)
            continue
        skipped.append(RejectedRow(row.where, name, reason, text))
    return tuple(paraphrases)


def _parse_keywords(row: SourceClip, name: str, skipped: list[RejectedRow]) -> tuple[str, ...]:
    cell = row.keywords.strip()
    if is_placeholder(cell):
        return ()
    if row.keyword_state is not None and row.keyword_state.strip() != "OK":
        text = f"{cell}, state {row.keyword_state.strip()}"
        skipped.append(RejectedRow(row.where, name, "keywords whose state is not OK", text))
        return ()
    if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "'\"":
        cell = cell[1:-1]
    words = (word.strip() for word in cell.split(","))
    return tuple(dict.fromkeys(word for word in words if not is_placeholder(word)))
