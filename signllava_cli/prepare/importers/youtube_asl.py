"""Imports YouTube-ASL: the tables of Sign_LLaVA, or a folder of captions."""

from collections.abc import Iterator
from pathlib import Path

from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.captions import caption_files, read_captions
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import Row, read_table

# The columns of the table without a header, by the names of the table with one.
COLUMNS = ("Beg(s)", "Dur(s)", "YouTubeID", "StartFrame", "EndFrame", "FPS", "Caption", "State", "Keywords")

MAX_DIGITS = 18  # of the number of a frame

IDENTIFYING_COLUMNS = ("ClipID", "YouTubeID", "StartFrame", "EndFrame")


def youtube_asl_files(path: Path) -> list[Path]:
    """`path` itself, or the caption files in the folder `path`."""
    return caption_files(path) if path.is_dir() else [path]


def youtube_asl_rows(path: Path, fps: float | None, file_of: dict[str, Path]) -> Iterator[SourceClip | RejectedRow]:
    """The clips of a table, of one `.vtt` file, or of a folder of them. A recording is a YouTube id.

    Clips of captions are named by frames at `fps`, else by milliseconds. `file_of`: see `read_captions`.

    Raises:
        UserError: `path` is none of these, or `fps` is invalid, or given for a table.
    """
    if fps is not None and not 0 < fps < 1000:
        raise UserError(f"--fps {fps:g}: expected frames per second, such as 29.97.")
    if path.is_dir() or path.suffix.lower() == ".vtt":
        yield from read_captions(youtube_asl_files(path), fps, file_of)
    elif fps is not None:
        raise UserError(f"--fps is for .vtt captions, but {path} is a table with frame numbers; omit this option.")
    else:
        yield from _table_rows(path)


def _table_rows(file: Path) -> Iterator[SourceClip | RejectedRow]:
    table = read_table(file, separators="\t,", columns=COLUMNS)
    has_clip_ids = "ClipID" in table.columns
    table.require("YouTubeID", "Beg(s)", "Dur(s)", "Caption", *(() if has_clip_ids else ("StartFrame", "EndFrame")))
    paraphrase_columns = table.columns_like(r"GPT_Rephrase\d+")

    def clip(row: Row) -> SourceClip:
        cells = row.cells
        return SourceClip(
            where=row.where,
            recording=cells["YouTubeID"],
            name=cells["ClipID"]
            if has_clip_ids
            else _make_clip_name(cells["YouTubeID"], cells["StartFrame"], cells["EndFrame"]),
            translation=cells["Caption"],
            start=cells["Beg(s)"],
            duration=cells["Dur(s)"],
            paraphrases=tuple(cells[column] for column in paraphrase_columns),
            keywords=cells.get("Keywords", ""),
            keyword_state=cells.get("State"),
            columns=row.pick(IDENTIFYING_COLUMNS),
        )

    return table.clips(clip)


def _make_clip_name(recording: str, first: str, last: str) -> str:
    """`{id}.{first:06d}-{last:06d}`; empty, which is invalid, if the frames are not numbers."""
    if not all(frame.strip().isdecimal() and len(frame) <= MAX_DIGITS for frame in (first, last)):
        return ""
    return f"{recording.strip()}.{int(first):06d}-{int(last):06d}"
