"""Imports RWTH-PHOENIX-Weather 2014 T."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import Row, read_table

COMPLEX = "-complex-annotation"  # in the name of a file that is not part of the benchmark


def official_files(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The benchmark's own files among `paths`, and the skipped ones; prints a line for each skipped file.

    The release also holds `PHOENIX-2014-T.train-complex-annotation.corpus.csv`: the clips of train with other glosses
    and with texts that end in " .".

    Raises:
        UserError: `paths` names only such files.
    """
    skipped = [path for path in paths if COMPLEX in path.name]
    official = [path for path in paths if path not in skipped]
    if not official:
        official_name = skipped[0].name.replace(COMPLEX, "")
        raise UserError(
            f"{skipped[0]} is the complex annotation, whose texts end in ' .'; name {official_name} instead."
        )
    for path in skipped:
        info(f"{path} is skipped: the complex annotation repeats clips of train with other texts.")
    return official, skipped


def phoenix14t_rows(file: Path) -> Iterator[SourceClip | RejectedRow]:
    """The clips of `PHOENIX-2014-T.{train,dev,test}.corpus.csv`.

    A recording is a broadcast: the clip name without its trailing `-n`, which is the order. The columns `start` and
    `end` hold -1, so clips have no times.

    Raises:
        UserError: the table lacks one of the columns.
    """
    table = read_table(file, separators="|", unquoted="|")
    table.require("name", "translation")

    def clip(row: Row) -> SourceClip | RejectedRow:
        name = row.cells["name"].strip()
        match = re.fullmatch(r"(.+)-(\d+)", name)
        if match is None:
            return RejectedRow(row.where, name, "name", f"{name!r} does not end in -n, its number in the broadcast")
        return SourceClip(
            where=row.where,
            recording=match[1],
            name=name,
            translation=row.cells["translation"],
            order=match[2],
            columns=row.pick(("name", "speaker")),
        )

    return table.clips(clip)
