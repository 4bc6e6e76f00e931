"""Imports OpenASL: one table of all splits."""

from collections.abc import Iterator
from pathlib import Path

from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import Row, read_table


def openasl_rows(file: Path) -> Iterator[SourceClip | RejectedRow]:
    """The clips of `openasl-v1.0.tsv`, or of a copy with commas. A recording is a YouTube id.

    The original has no quoting: `"` is part of the text. A copy with commas has quoting.

    Raises:
        UserError: the table lacks one of the columns.
    """
    table = read_table(file, separators="\t,", unquoted="\t")
    table.require("vid", "yid", "start", "end", "raw-text", "split")

    def clip(row: Row) -> SourceClip:
        return SourceClip(
            where=row.where,
            recording=row.cells["yid"],
            name=row.cells["vid"],
            translation=row.cells["raw-text"],
            start=row.cells["start"],
            end=row.cells["end"],
            split=row.cells["split"],
            columns=row.pick(("vid", "yid")),
        )

    return table.clips(clip)
