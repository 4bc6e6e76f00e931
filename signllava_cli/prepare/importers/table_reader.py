"""Delimited text as rows with their line numbers; a row that cannot be read is told, not skipped."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip

MAX_CELL_CHARS = 1 << 20  # characters; a longer one is a quote that is never closed


@dataclass(frozen=True)
class Row:
    """The cells of a row by column, and `file:line` of its first line."""

    where: str
    cells: dict[str, str]

    def pick(self, columns: Iterable[str]) -> dict[str, str]:
        """The cells of those `columns` that the table has."""
        return {column: self.cells[column] for column in columns if column in self.cells}


@dataclass(frozen=True)
class Table:
    """The columns of `file`, and its rows in order. `rows` can be walked once."""

    file: Path
    columns: tuple[str, ...]
    rows: Iterator[Row | RejectedRow]

    def require(self, *columns: str) -> None:
        """Check that `columns` are there.

        Raises:
            UserError: names the missing columns, and those that are there.
        """
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise UserError(
                f"{self.file} has no column {', '.join(missing)}; its columns are {', '.join(self.columns)}."
            )

    def columns_like(self, pattern: str) -> list[str]:
        """The columns that the regular expression `pattern` matches, in order."""
        return [column for column in self.columns if re.fullmatch(pattern, column)]

    def clips(self, clip_of: Callable[[Row], SourceClip | RejectedRow]) -> Iterator[SourceClip | RejectedRow]:
        """What `clip_of` makes of each row, and the rows that could not be read."""
        for row in self.rows:
            yield row if isinstance(row, RejectedRow) else clip_of(row)


def read_table(file: Path, separators: str, unquoted: str = "", columns: Sequence[str] = ()) -> Table:
    """The table in `file`.

    Args:
        separators: one character, or several, of which the first line's most frequent is taken.
        unquoted: the separators with which `"` never encloses a cell. With others it may (RFC 4180); a quote that
            does not fit stays as it is, in the text.
        columns: the names where the file has no header. A first line that holds most of them is a header.

    Raises:
        UserError: the file cannot be read, is not UTF-8 (a byte order mark may be), is empty, or repeats a column.
    """
    lines = list(io.StringIO(read_text(file), newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UserError(f"{file} is empty.")
    separator = max(separators, key=lines[first].count)
    quoted = separator not in unquoted
    cells, used = _record(lines, first, separator, quoted)
    header = [" ".join(cell.split()) for cell in cells]
    if columns and len(set(columns) & set(header)) <= len(columns) / 2:
        header, used = list(columns), 0
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise UserError(f"{file} gives the column {', '.join(twice)} twice; rename one of them.")
    return Table(file, tuple(header), _rows(file, lines, first + used, header, separator, quoted))


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; line ends as they are.

    Raises:
        UserError: the file cannot be read, or is not UTF-8; says in which line.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}, is not UTF-8 text: save the file as UTF-8.") from None


def _rows(
    file: Path, lines: list[str], at: int, columns: list[str], separator: str, quoted: bool
) -> Iterator[Row | RejectedRow]:
    while at < len(lines):
        cells, used = _record(lines, at, separator, quoted)
        where, text = f"{file}:{at + 1}", "".join(lines[at : at + used])
        at += used
        if not text.strip("\r\n"):
            continue  # an empty line is no row
        swallowed = [line for cell in cells for line in cell.splitlines()[1:] if used > 1]
        if any(line.count(separator) == len(columns) - 1 for line in swallowed):
            what = f"a quote opens in line {at - used + 1} and closes in line {at}; the lines between look like rows"
            yield RejectedRow(where, "", "quote over several rows", what)
        elif "\0" in text:
            yield RejectedRow(where, "", "NUL byte", text.strip())
        elif len(cells) != len(columns):
            yield RejectedRow(
                where, "", "number of fields", f"{len(cells)} fields, the table has {len(columns)} columns"
            )
        else:
            yield Row(where, dict(zip(columns, cells, strict=True)))


def _record(lines: list[str], at: int, separator: str, quoted: bool) -> tuple[list[str], int]:
    """The cells of the row that begins in line `at`, and the number of lines it takes."""
    if quoted and '"' in lines[at]:
        csv.field_size_limit(MAX_CELL_CHARS)
        rest = (lines[number] for number in range(at, len(lines)))
        reader = csv.reader(rest, delimiter=separator, strict=True)
        try:
            cells = next(reader)
        except csv.Error:
            cells = []
        # A quote that belongs to a text and is "closed" by one of a later row swallows the rows between them.
        # strict finds it where text follows that quote; a TAB inside a cell is the sign where none does.
        if cells and not any("\t" in cell for cell in cells if separator == "\t"):
            return cells, reader.line_num
    return lines[at].rstrip("\r\n").split(separator), 1
