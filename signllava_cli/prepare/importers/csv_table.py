"""Imports any delimited table; the user names its columns."""

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
    """The columns of a table by their meaning; None if the table has no such column.

    `text` None: the first of TEXT_COLUMNS. `clip` None: `uid`, or, in a table without it, names made of recording and
    times. `keep`: columns to store with the clips, besides those of clip and recording. `separator` None: detected in
    the first line. `names`: the column names of a file without a header.
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


def table_rows(file: Path, config: ColumnNames) -> Iterator[SourceClip | RejectedRow]:
    """The clips of a table. Without a recording column each clip is a recording of its own.

    Raises:
        UserError: the table lacks one of the columns.
    """
    if (config.end or config.duration) and not config.start:
        raise UserError("--end and --duration need --start; name its column.")
    table = read_table(file, config.separator or SEPARATORS, columns=config.names)
    clip_column = config.clip or _find_clip_column(table, config)
    columns = (clip_column, config.text, config.recording, config.start, config.end, config.duration, config.order)
    table.require(
        *(column for column in (*columns, config.keywords, *config.paraphrases, config.split, *config.keep) if column)
    )
    text = config.text or _find_text_column(table)
    kept_columns = _columns_to_keep(clip_column, config)

    def clip(row: Row) -> SourceClip:
        def cell(column: str | None) -> str | None:
            return row.cells[column] if column else None

        return SourceClip(
            where=row.where,
            recording=cell(config.recording or clip_column) or "",
            name=cell(clip_column),
            translation=row.cells[text],
            start=cell(config.start),
            end=cell(config.end),
            duration=cell(config.duration),
            order=cell(config.order),
            paraphrases=tuple(row.cells[column] for column in config.paraphrases),
            keywords=cell(config.keywords) or "",
            split=cell(config.split),
            columns=row.pick(kept_columns),
        )

    return table.clips(clip)


def _find_clip_column(table: Table, config: ColumnNames) -> str | None:
    """`uid`; None if the table has no such column, but recording and times for names.

    Raises:
        UserError: the table has neither.
    """
    if CLIP_COLUMN in table.columns:
        return CLIP_COLUMN
    if config.recording and config.start and (config.end or config.duration):
        names = "{recording}.{start}-{end}, in milliseconds"
        info(f"{table.file} has no column {CLIP_COLUMN}: clips are named {names}.")
        return None
    raise UserError(
        f"{table.file} has no column {CLIP_COLUMN}; its columns are {', '.join(table.columns)}. Name the column of"
        " clip names with --clip; or by recording and times: --recording, --start, --end (or --duration)."
    )


def _columns_to_keep(clip: str | None, config: ColumnNames) -> list[str]:
    """The columns of clip and recording, unless they have these names in the layout, and those of `--keep`."""
    columns = {"clip": "", "recording": ""}  # name in lower case -> column
    for column in filter(None, (clip, config.recording)):
        columns.setdefault(column.lower(), column)
    for column in config.keep:
        if columns.setdefault(column.lower(), column) != column:
            raise UserError(
                f"--keep {column}: `{{{column.lower()}}}` has another meaning in patterns of `prepare pack`;"
                " rename the column."
            )
    return [column for column in columns.values() if column]


def _find_text_column(table: Table) -> str:
    for column in TEXT_COLUMNS:
        if column in table.columns:
            return column
    raise UserError(
        f"{table.file} has no column {', '.join(TEXT_COLUMNS)}; its columns are {', '.join(table.columns)}. "
        "Name the column of the text with --text."
    )
