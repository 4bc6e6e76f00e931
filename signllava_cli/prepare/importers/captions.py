"""Reads WebVTT captions, one file per video; each cue is a clip."""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import webvtt

from signllava_cli.errors import UserError
from signllava_cli.files import read_text
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip


def caption_files(folder: Path) -> list[Path]:
    """The `.vtt` files in `folder`, sorted by recording; of one recording, the shortest name first.

    Raises:
        UserError: the folder has none.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".vtt"]
    if not files:
        raise UserError(f"{folder} holds no .vtt files; name the folder that holds them.")
    return sorted(files, key=lambda file: (recording_name(file), len(file.name), file.name))


def recording_name(file: Path) -> str:
    """The file's name up to its first dot: `abc123.en.vtt` is a caption of `abc123`."""
    return file.name.partition(".")[0]


def read_captions(
    files: Sequence[Path], fps: float | None, file_of: dict[str, Path]
) -> Iterator[SourceClip | RejectedRow]:
    """One clip per cue, named after its frames at `fps`, else after its milliseconds.

    `file_of`: recording -> its file, of the recordings read so far; updated here. A second file of a recording (other
    captions of the same signing) is rejected: its sentences would be context of the first one's.

    Raises:
        UserError: a file cannot be read or does not begin with WEBVTT.
    """
    for file in files:
        recording = recording_name(file)
        if recording in file_of:
            text = f"{file_of[recording].name} is read for {recording}"
            yield RejectedRow(str(file), recording, "second caption file of a recording", text)
            continue
        file_of[recording] = file
        yield from _read_clips(file, recording, fps)


def _read_clips(file: Path, recording: str, fps: float | None) -> Iterator[SourceClip | RejectedRow]:
    for line, block in _cue_blocks(file):
        where = f"{file}:{line}"
        timings = [text for text in block.split("\n") if "-->" in text]
        try:
            cues = webvtt.from_string(f"WEBVTT\n\n{block}").captions
            clips = [_make_clip(cue, where, recording, fps) for cue in cues]
        except (ValueError, OverflowError):  # hours of hundreds of digits
            clips = []
        if len(clips) < len(timings) and not block.startswith("NOTE"):
            yield RejectedRow(where, recording, "malformed cue", "; ".join(timings))
        yield from clips


def _make_clip(cue: webvtt.Caption, where: str, recording: str, fps: float | None) -> SourceClip:
    start, end = cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds()
    return SourceClip(
        where=where,
        recording=recording,
        name=f"{recording}.{_format_time(start, fps)}-{_format_time(end, fps)}",
        translation=" ".join(html.unescape(cue.text).split()),
        start=f"{start / 1000:.3f}",
        end=f"{end / 1000:.3f}",
    )


def _cue_blocks(file: Path) -> Iterator[tuple[int, str]]:
    """The blocks of a file that contain a cue's `-->`, each with the number of its first line.

    Blocks are parsed one by one, because webvtt reports no line numbers and skips malformed cues without a warning.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(file))
    if not lines[0].startswith("WEBVTT"):
        raise UserError(f"{file} is not a valid WebVTT file: its first line must be WEBVTT. Remove or convert it.")
    block: list[str] = []
    for number, line in enumerate([*lines[1:], ""], start=2):
        if line:
            block.append(line)
        else:
            if any("-->" in text for text in block):
                yield number - len(block), "\n".join(block)
            block = []


def _format_time(milliseconds: int, fps: float | None) -> str:
    if fps is None:
        return f"{milliseconds:08d}"
    return f"{round(milliseconds * fps / 1000):06d}"
