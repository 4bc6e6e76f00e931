"""WebVTT captions, one file per video, as clips."""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import webvtt

from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.source import RejectedRow, SourceClip
from signllava_cli.prepare.importers.table_reader import read_text


def caption_files(folder: Path) -> list[Path]:
    """The `.vtt` files in `folder` by recording; of one recording's, the shortest name first.

    Raises:
        UserError: there are none.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".vtt"]
    if not files:
        raise UserError(f"{folder} holds no .vtt files: name the folder in which they lie.")
    return sorted(files, key=lambda file: (recording_name(file), len(file.name), file.name))


def recording_name(file: Path) -> str:
    """The file's name up to its first dot: `abc123.en.vtt` is a caption of `abc123`."""
    return file.name.partition(".")[0]


def read_captions(
    files: Sequence[Path], fps: float | None, read: dict[str, Path]
) -> Iterator[SourceClip | RejectedRow]:
    """One clip per cue, named after its frames at `fps`, else after its milliseconds.

    `read` holds the file of each recording read so far, and is added to. A second file of a recording (other
    captions of the same signing) is not read: its sentences would stand in the context of the first one's.

    Raises:
        UserError: a file cannot be read or does not begin with WEBVTT.
    """
    for file in files:
        recording = recording_name(file)
        if recording in read:
            what = f"{read[recording].name} is read for {recording}"
            yield RejectedRow(str(file), recording, "second caption file of a recording", what)
            continue
        read[recording] = file
        yield from _clips(file, recording, fps)


def _clips(file: Path, recording: str, fps: float | None) -> Iterator[SourceClip | RejectedRow]:
    for line, block in _blocks(file):
        where = f"{file}:{line}"
        cues = webvtt.from_string(f"WEBVTT\n\n{block}").captions
        timings = [text for text in block.split("\n") if "-->" in text]
        if len(cues) < len(timings) and not block.startswith("NOTE"):
            yield RejectedRow(where, recording, "malformed cue", "; ".join(timings))
        for cue in cues:
            start, end = cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds()
            yield SourceClip(
                where=where,
                recording=recording,
                name=f"{recording}.{_time_in_name(start, fps)}-{_time_in_name(end, fps)}",
                translation=" ".join(html.unescape(cue.text).split()),
                start=f"{start / 1000:.3f}",
                end=f"{end / 1000:.3f}",
            )


def _blocks(file: Path) -> Iterator[tuple[int, str]]:
    """The blocks of a file that hold a cue's `-->`, each with the number of its first line.

    They are parsed one by one: webvtt tells no lines, and leaves malformed cues out in silence.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(file))
    if not lines[0].startswith("WEBVTT"):
        raise UserError(f"{file} is no WebVTT file: its first line must be WEBVTT. Take it out, or convert it.")
    block: list[str] = []
    for number, line in enumerate([*lines[1:], ""], start=2):
        if line:
            block.append(line)
        else:
            if any("-->" in text for text in block):
                yield number - len(block), "\n".join(block)
            block = []


def _time_in_name(milliseconds: int, fps: float | None) -> str:
    if fps is None:
        return f"{milliseconds:08d}"
    return f"{round(milliseconds * fps / 1000):06d}"
