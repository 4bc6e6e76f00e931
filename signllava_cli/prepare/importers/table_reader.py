"""Reads delimited text as rows with line numbers; malformed rows are returned as rejected rows."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_text
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip

MAX_CELL_CHARS = 1 << 20  # a longer cell is a quote that is never closed


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
    """The columns of `file`, and its rows in order. `rows` can be iterated once."""

    file: Path
    columns: tuple[str, ...]
    rows: Iterator[Row | RejectedRow]

    def require(self, *columns: str) -> None:
        """Check that the table has `columns`.

        Raises:
            UserError: some are missing; the message lists them and the existing ones.
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
        """The result of `clip_of` for each row, and the malformed rows."""
        for row in self.rows:
            yield row if isinstance(row, RejectedRow) else clip_of(row)


def read_table(file: Path, separators: str, unquoted: str = "", columns: Sequence[str] = ()) -> Table:
    """The table in `file`.

    Args:
        separators: one character, or several; the most frequent in the first line is used.
        unquoted: the separators with which `"` never encloses a cell. With others it may (RFC 4180); a quote that
            does not enclose a cell is part of the text.
        columns: the column names of a file without header. A first line with most of them is a header.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is empty, or repeats a column.
    """
    lines = list(io.StringIO(read_text(file), newline=""))
    header_index = next((index for index, line in enumerate(lines) if line.strip()), None)
    if header_index is None:
        raise UserError(f"{file} is empty; name a table with a header.")
    separator = max(separators, key=lines[header_index].count)
    is_quoted = separator not in unquoted
    cells, num_lines = _read_record(lines, header_index, separator, is_quoted)
    header = [" ".join(cell.split()) for cell in cells]
    if columns and len(set(columns) & set(header)) <= len(columns) / 2:
        header, num_lines = list(columns), 0
    repeated = sorted(column for column, count in Counter(header).items() if column and count > 1)
    if repeated:
        raise UserError(f"{file} has the column {summarize_names(repeated)} twice; rename one of them.")
    return Table(file, tuple(header), _read_rows(file, lines, header_index + num_lines, header, separator, is_quoted))


def _read_rows(
    file: Path, lines: list[str], start: int, columns: list[str], separator: str, is_quoted: bool
) -> Iterator[Row | RejectedRow]:
    index = start
    while index < len(lines):
        cells, num_lines = _read_record(lines, index, separator, is_quoted)
        where, text = f"{file}:{index + 1}", "".join(lines[index : index + num_lines])
        index += num_lines
        if not text.strip("\r\n"):
            continue  # skip empty lines
        enclosed_lines = [line for cell in cells for line in cell.splitlines()[1:] if num_lines > 1]
        if any(line.count(separator) == len(columns) - 1 for line in enclosed_lines):
            error = f"a quote opens in line {index - num_lines + 1} and closes in line {index}; it encloses rows"
            yield RejectedRow(where, "", "quote over several rows", error)
        elif "\0" in text:
            yield RejectedRow(where, "", "NUL byte", text.strip())
        elif len(cells) != len(columns):
            yield RejectedRow(
                where, "", "number of fields", f"{len(cells)} fields, the table has {len(columns)} columns"
            )
        else:
            yield Row(where, dict(zip(columns, cells, strict=True)))


def _read_record(lines: list[str], start: int, separator: str, is_quoted: bool) -> tuple[list[str], int]:
    """The cells of the row that begins in line `start`, and its number of lines."""
    if is_quoted and '"' in lines[start]:
        csv.field_size_limit(MAX_CELL_CHARS)
        rest = (lines[index] for index in range(start, len(lines)))
        reader = csv.reader(rest, delimiter=separator, strict=True)
        try:
            cells = next(reader)
        except csv.Error:
            cells = []
        # A quote inside a text that is "closed" by a quote of a later row encloses the rows between them. In strict
        # mode csv raises if text follows the closing quote; else a TAB inside a cell shows it.
        if cells and not any("\t" in cell for cell in cells if separator == "\t"):
            return cells, reader.line_num
    return lines[start].rstrip("\r\n").split(separator), 1
