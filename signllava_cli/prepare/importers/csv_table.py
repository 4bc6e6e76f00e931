"""Any delimited table, whose columns the user names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import Row, Table, read_table

CLIP_COLUMN = "uid"
TEXT_COLUMNS = ("translation", "text", "sentence", "word", "gloss")
SEPARATORS = "\t,;|"


@dataclass(frozen=True)
class ColumnNames:
    """Which column holds what; None: the table has none such. `text` None: the first of TEXT_COLUMNS.

    `clip` None: `uid`, or, in a table without it, names made of recording and times.

    `keep`: columns that stay with the clips, besides those of clip and recording. `separator` None is sniffed from
    the first line; `names` are those of a file without a header.
    """

    clip: str | None = None
    text: str | None = None
    recording: str | None = None
    start: str | None = None
    end: str | None = None
    duration: str | None = None
    order: str | None = None
    keywords: str | None = None
    paraphrases: tuple[str, ...] = ()
    split: str | None = None
    keep: tuple[str, ...] = ()
    separator: str | None = None
    names: tuple[str, ...] = ()


def table_rows(file: Path, read: ColumnNames) -> Iterator[SourceClip | RejectedRow]:
    """The clips of any table. Without a recording column each clip is a recording of its own.

    Raises:
        UserError: the table has not those columns.
    """
    if (read.end or read.duration) and not read.start:
        raise UserError("--end and --duration mean nothing without --start: name its column.")
    table = read_table(file, read.separator or SEPARATORS, columns=read.names)
    clip_column = read.clip or _clip_column(table, read)
    named = (clip_column, read.text, read.recording, read.start, read.end, read.duration, read.order)
    table.require(
        *(column for column in (*named, read.keywords, *read.paraphrases, read.split, *read.keep) if column)
    )
    text = read.text or _text_column(table)
    kept = _columns_to_keep(clip_column, read)

    def clip(row: Row) -> SourceClip:
        def cell(column: str | None) -> str | None:
            return row.cells[column] if column else None

        return SourceClip(
            where=row.where,
            recording=cell(read.recording or clip_column) or "",
            name=cell(clip_column),
            translation=row.cells[text],
            start=cell(read.start),
            end=cell(read.end),
            duration=cell(read.duration),
            order=cell(read.order),
            paraphrases=tuple(row.cells[column] for column in read.paraphrases),
            keywords=cell(read.keywords) or "",
            split=cell(read.split),
            columns=row.pick(kept),
        )

    return table.clips(clip)


def _clip_column(table: Table, read: ColumnNames) -> str | None:
    """`uid`; None where the table has no such column, but recording and times, to name clips after.

    Raises:
        UserError: it has neither.
    """
    if CLIP_COLUMN in table.columns:
        return CLIP_COLUMN
    if read.recording and read.start and (read.end or read.duration):
        names = "{recording}.{start}-{end}, in milliseconds"
        info(f"{table.file} has no column {CLIP_COLUMN}: clips are named {names}.")
        return None
    raise UserError(
        f"{table.file} has no column {CLIP_COLUMN}; its columns are {', '.join(table.columns)}. Name the column of"
        " clip names with --clip; or let recording and times name clips: --recording, --start, --end (or --duration)."
    )


def _columns_to_keep(clip: str | None, read: ColumnNames) -> list[str]:
    """The columns of clip and recording, unless the layout calls them so anyway, and those of `--keep`."""
    kept = {"clip": "", "recording": ""}  # name in lower case -> column
    for column in filter(None, (clip, read.recording)):
        kept.setdefault(column.lower(), column)
    for column in read.keep:
        if kept.setdefault(column.lower(), column) != column:
            raise UserError(
                f"--keep {column}: `{{{column.lower()}}}` has another meaning in patterns of `prepare pack`;"
                " rename the column."
            )
    return [column for column in kept.values() if column]


def _text_column(table: Table) -> str:
    for column in TEXT_COLUMNS:
        if column in table.columns:
            return column
    raise UserError(
        f"{table.file} has no column {', '.join(TEXT_COLUMNS)}; its columns are {', '.join(table.columns)}. "
        "Name the column of the text with --text."
    )
