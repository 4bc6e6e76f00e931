"""RWTH-PHOENIX-Weather 2014 T."""

import re
from collections.abc import Iterator
from pathlib import Path

from signllava_cli.data.importers.source import SourceClip, Unusable
from signllava_cli.data.importers.tables import Row, read_table


def phoenix14t_rows(file: Path) -> Iterator[SourceClip | Unusable]:
    """The clips of `PHOENIX-2014-T.{train,dev,test}.corpus.csv`.

    A recording is a broadcast: the name without its trailing `-n`, which gives the order. The columns `start` and
    `end` hold -1, so clips have no times.

    Raises:
        UserError: the file is no such table.
    """
    table = read_table(file, separators="|", quoted=False)
    table.require("name", "translation")

    def clip(row: Row) -> SourceClip | Unusable:
        name = row.cells["name"].strip()
        numbered = re.fullmatch(r"(.+)-(\d+)", name)
        if numbered is None:
            return Unusable(row.where, name, "name", f"{name!r} does not end in -n, its place in the broadcast")
        return SourceClip(
            where=row.where,
            recording=numbered[1],
            name=name,
            translation=row.cells["translation"],
            order=numbered[2],
        )

    return table.clips(clip)
