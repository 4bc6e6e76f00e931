"""Imports How2Sign: realigned or not, with or without the LLM columns of Sign_LLaVA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import Row, read_table

RECORDING_COLUMN = {"video-name": "VIDEO_NAME", "video-id": "VIDEO_ID"}
IDENTIFYING_COLUMNS = ("VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME")


def how2sign_rows(file: Path, group_by: Literal["video-name", "video-id"]) -> Iterator[SourceClip | RejectedRow]:
    """The clips of `how2sign_realigned_{train,val,test}.csv` or its variants.

    A recording is a VIDEO_NAME: one signer's video. `video-id` joins the signers of one script, as Sign_LLaVA did.

    Raises:
        UserError: the table lacks one of the columns.
    """
    table = read_table(file, separators="\t,")
    is_unaligned = "START" in table.columns and "START_REALIGNED" not in table.columns
    start, end = ("START", "END") if is_unaligned else ("START_REALIGNED", "END_REALIGNED")
    recording = RECORDING_COLUMN[group_by]
    table.require(recording, "SENTENCE_NAME", start, end, "SENTENCE")
    paraphrase_columns = table.columns_like(r"GPT_Rephrase\d+")

    def clip(row: Row) -> SourceClip:
        return SourceClip(
            where=row.where,
            recording=row.cells[recording],
            name=row.cells["SENTENCE_NAME"],
            translation=row.cells["SENTENCE"],
            start=row.cells[start],
            end=row.cells[end],
            paraphrases=tuple(row.cells[column] for column in paraphrase_columns),
            keywords=row.cells.get("KEYWORDS", ""),
            keyword_state=row.cells.get("STATE"),
            columns=row.pick(IDENTIFYING_COLUMNS),
        )

    return table.clips(clip)
