"""Merges paraphrases from a file into an annotation file."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.console import info
from signllava_cli.data.annotations import Clip, annotation_file, read_annotations
from signllava_cli.data.words import is_placeholder
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_json
from signllava_cli.prepare.annotation_edits import edit_annotation
from signllava_cli.prepare.importers.source import RejectedRow
from signllava_cli.prepare.importers.table_reader import read_table
from signllava_cli.recipe import is_unicode

SEPARATORS = "\t,;"
COLUMN_MARKERS = ("paraphrase", "rephrase")  # substrings of the names of paraphrase columns
PLACEHOLDER, COPY, REPETITION = "placeholder", "copy of the translation", "repetition"


@dataclass(frozen=True)
class ClipParaphrases:
    """The paraphrases of one clip in a file. `clip` is `clip` or `recording/clip`, as in the file."""

    clip: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class MergeResult:
    """The result of a merge.

    `added`: the clip id of each added text. `skipped`: reason -> the clip id of each skipped text. `unknown`: entries
    of clips that are not in the split. `unreadable`: malformed rows of the table.
    """

    added: list[str]
    skipped: dict[str, list[str]]
    unknown: list[ClipParaphrases]
    unreadable: list[RejectedRow]


def merge_paraphrases(
    file: Path,
    root: Path,
    split: str,
    clip_column: str = "clip",
    columns: Sequence[str] = (),
    replace: bool = False,
    dry_run: bool = False,
) -> MergeResult:
    """Add the paraphrases in `file` to those in the annotation file of `split`.

    Args:
        file: `.json` (`{clip: [..]}`, `{"recording/clip": [..]}`, `{recording: {clip: [..]}}` or the layout of an
            annotation file), else a table with a header, separated by TAB, comma or semicolon.
        clip_column: the column of the clip.
        columns: the columns of paraphrases. Default: those with `paraphrase` or `rephrase` in their name, else all
            others.
        replace: replace the existing paraphrases of a clip if `file` has a valid text for it.
        dry_run: print the changes without writing them.

    Raises:
        UserError: a file is missing or malformed, a clip name without recording is ambiguous, or no clip of
            `file` is in the split.
    """
    clips = [clip for recording in read_annotations(root, split) for clip in recording.clips]
    is_json = file.suffix.casefold() == ".json"
    entries = list(_read_json_entries(file) if is_json else _read_table_entries(file, clip_column, columns))
    file_entries = [entry for entry in entries if isinstance(entry, ClipParaphrases)]
    clip_of = _resolve_clips(file, file_entries, clips)
    if not clip_of:
        names = summarize_names(repr(entry.clip) for entry in file_entries) or "it names none"
        raise UserError(
            f"{file}: none of its clips is in {annotation_file(root, split)} ({names}); "
            "choose another --split, or for a table another --clip-column."
        )
    texts, result = _merge(entries, clip_of, replace)
    edit_annotation(root, split, "paraphrases", texts, dry_run)
    return result


def _merge(
    entries: Sequence[ClipParaphrases | RejectedRow], clip_of: Mapping[str, Clip], replace: bool
) -> tuple[dict[str, list[str]], MergeResult]:
    """The new list of paraphrases of each clip, by id, and the result."""
    texts: dict[str, list[str]] = {}
    result = MergeResult([], {PLACEHOLDER: [], COPY: [], REPETITION: []}, [], [])
    for entry in entries:
        if isinstance(entry, RejectedRow):
            result.unreadable.append(entry)
        elif entry.clip not in clip_of:
            result.unknown.append(entry)
        else:
            clip = clip_of[entry.clip]
            clip_texts = texts.setdefault(clip.id, [] if replace else list(clip.paraphrases))
            for text in entry.texts:
                if reason := _skip_reason(text, clip, clip_texts):
                    result.skipped[reason].append(clip.id)
                else:
                    clip_texts.append(text)
                    result.added.append(clip.id)
    return {clip: clip_texts for clip, clip_texts in texts.items() if clip_texts}, result


def _skip_reason(text: str, clip: Clip, clip_texts: Sequence[str]) -> str | None:
    if is_placeholder(text):
        return PLACEHOLDER
    if text == clip.translation.strip():
        return COPY
    return REPETITION if text in map(str.strip, clip_texts) else None


def _resolve_clips(file: Path, entries: Sequence[ClipParaphrases], clips: Sequence[Clip]) -> dict[str, Clip]:
    """Name in `file` -> clip, for the clips of the split."""
    clips_named: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:  # a name holds no `/`, so it is never another clip's id
        clips_named[clip.id].append(clip)
        clips_named[clip.name].append(clip)
    matches = {entry.clip: clips_named[entry.clip] for entry in entries if entry.clip in clips_named}
    if ambiguous := [name for name, named_clips in matches.items() if len(named_clips) > 1]:
        recordings = summarize_names(repr(clip.recording) for clip in matches[ambiguous[0]])
        raise UserError(
            f"{file}: clip names are in several recordings: {summarize_names(map(repr, ambiguous))} "
            f"(the first in {recordings}); write recording/clip."
        )
    return {name: named_clips[0] for name, named_clips in matches.items()}


def _read_json_entries(file: Path) -> Iterator[ClipParaphrases]:
    for name, entry in read_json(file).items():
        if not isinstance(entry, dict):
            yield _parse_entry(file, name, entry)
            continue
        for clip, texts in entry.items():
            if clip != "clip_order":  # of an annotation file
                yield _parse_entry(file, f"{name}/{clip}", texts)


def _parse_entry(file: Path, clip: str, entry: Any) -> ClipParaphrases:
    texts = entry.get("paraphrases") or [] if isinstance(entry, Mapping) else entry
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file}, clip {clip!a}: expected a list of texts.")
    if not all(map(is_unicode, (clip, *texts))):
        raise UserError(
            f"{file}, clip {clip!a}: half a surrogate pair (\\ud800 to \\udfff) is not valid Unicode; fix the text."
        )
    return ClipParaphrases(clip, tuple(text.strip() for text in texts))


def _read_table_entries(
    file: Path, clip_column: str, columns: Sequence[str]
) -> Iterator[ClipParaphrases | RejectedRow]:
    table = read_table(file, SEPARATORS)
    table.require(clip_column, *columns)
    other_columns = [column for column in table.columns if column != clip_column]
    marked_columns = [
        column for column in other_columns if any(marker in column.casefold() for marker in COLUMN_MARKERS)
    ]
    paraphrase_columns = list(columns) or marked_columns or other_columns
    if not paraphrase_columns:
        raise UserError(f"{file} has no column but {clip_column}; add a column of paraphrases.")
    info(f"{file}: clips from the column {clip_column}, paraphrases from {', '.join(paraphrase_columns)}.")
    for row in table.rows:
        if isinstance(row, RejectedRow):
            yield row
        else:
            yield ClipParaphrases(
                row.cells[clip_column].strip(), tuple(row.cells[column].strip() for column in paraphrase_columns)
            )
