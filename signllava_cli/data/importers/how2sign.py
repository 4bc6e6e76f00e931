"""How2Sign: realigned or not, with or without the research system's LLM columns."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from signllava_cli.console import warn
from signllava_cli.data.annotations import Recording
from signllava_cli.data.importers.source import SourceClip, Unusable
from signllava_cli.data.importers.tables import Row, read_table
from signllava_cli.data.leaks import leaked_references

RECORDING_COLUMN = {"video-name": "VIDEO_NAME", "video-id": "VIDEO_ID"}
IDENTIFYING_COLUMNS = ("VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME")
RESEARCH_CONTEXT = {"window": 2, "prelude": 2}


def how2sign_rows(file: Path, group_by: Literal["video-name", "video-id"]) -> Iterator[SourceClip | Unusable]:
    """The clips of `how2sign_realigned_{train,val,test}.csv` or its variants.

    A recording is a VIDEO_NAME: one signer's video. `video-id` puts the signers of one script together, as the
    research system did.

    Raises:
        UserError: the file is no such table.
    """
    table = read_table(file, separators="\t,")
    as_aired = "START" in table.columns and "START_REALIGNED" not in table.columns
    start, end = ("START", "END") if as_aired else ("START_REALIGNED", "END_REALIGNED")
    recording = RECORDING_COLUMN[group_by]
    table.require(recording, "SENTENCE_NAME", start, end, "SENTENCE")
    rephrases = table.columns_like(r"GPT_Rephrase\d+")

    def clip(row: Row) -> SourceClip:
        return SourceClip(
            where=row.where,
            recording=row.cells[recording],
            name=row.cells["SENTENCE_NAME"],
            translation=row.cells["SENTENCE"],
            start=row.cells[start],
            end=row.cells[end],
            paraphrases=tuple(row.cells[column] for column in rephrases),
            keywords=row.cells.get("KEYWORDS", ""),
            state=row.cells.get("STATE"),
            columns=row.pick(IDENTIFYING_COLUMNS),
        )

    return table.clips(clip)


def warn_of_leaks(splits: Mapping[str, Sequence[Recording]]) -> None:
    """Say how many clips would read their own reference in the context that the research system gave them."""
    for split, recordings in splits.items():
        clips = sum(len(recording.clips) for recording in recordings)
        leaked = len(leaked_references(recordings, **RESEARCH_CONTEXT))
        warn(
            f"{split}: grouped by VIDEO_ID, {leaked} of {clips} clips ({leaked / clips:.1%}) have their own reference"
            " in their gold context (window 2, prelude 2), which flatters its scores;"
            " --group-by video-name keeps signers apart."
        )
