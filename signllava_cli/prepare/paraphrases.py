"""Paraphrases that were made elsewhere, brought to the clips of an annotation file."""

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
COLUMN_MARKERS = ("paraphrase", "rephrase")  # in the name of a column: it holds paraphrases
SAYS_NOTHING, COPY, REPEAT = "says nothing", "copy of the translation", "repeat"


@dataclass(frozen=True)
class ClipParaphrases:
    """What a file says of one clip. `clip` is `clip` or `recording/clip`, as the file has it."""

    clip: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class MergeResult:
    """What became of the texts of a file: the clip of each that was added or left out, by its id.

    `unknown` are the entries whose clip the split does not have, `unreadable` the table's rows that cannot be read.
    """

    added: list[str]
    left_out: dict[str, list[str]]
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
            annotation file), else a table with a header, its cells apart by TAB, comma or semicolon.
        clip_column: the column of the table that names the clip.
        columns: those that hold a paraphrase. Default: those with `paraphrase` or `rephrase` in their name, else
            all others.
        replace: put them in place of those that the clip has; where `file` has no usable text, these stay.
        dry_run: only say what would change.

    Raises:
        UserError: a file is missing or malformed, a clip's name without its recording could mean two clips, or no
            clip of `file` is in the split.
    """
    clips = [clip for recording in read_annotations(root, split) for clip in recording.clips]
    is_json = file.suffix.casefold() == ".json"
    entries = list(_read_json_entries(file) if is_json else _read_table_entries(file, clip_column, columns))
    given = [each for each in entries if isinstance(each, ClipParaphrases)]
    meant = _resolve_clips(file, given, clips)
    if not meant:
        named = summarize_names(repr(each.clip) for each in given) or "it names none"
        raise UserError(
            f"{file}: none of its clips is in {annotation_file(root, split)} ({named}); "
            "choose another --split, or for a table another --clip-column."
        )
    texts, merged = _merge(entries, meant, replace)
    edit_annotation(root, split, "paraphrases", texts, dry_run)
    return merged


def _merge(
    entries: Sequence[ClipParaphrases | RejectedRow], meant: Mapping[str, Clip], replace: bool
) -> tuple[dict[str, list[str]], MergeResult]:
    """The paraphrases that each clip is to have, by its id, and what became of the texts."""
    texts: dict[str, list[str]] = {}
    merged = MergeResult([], {SAYS_NOTHING: [], COPY: [], REPEAT: []}, [], [])
    for entry in entries:
        if isinstance(entry, RejectedRow):
            merged.unreadable.append(entry)
        elif entry.clip not in meant:
            merged.unknown.append(entry)
        else:
            clip = meant[entry.clip]
            its_texts = texts.setdefault(clip.id, [] if replace else list(clip.paraphrases))
            for text in entry.texts:
                if reason := _skip_reason(text, clip, its_texts):
                    merged.left_out[reason].append(clip.id)
                else:
                    its_texts.append(text)
                    merged.added.append(clip.id)
    return {clip: its_texts for clip, its_texts in texts.items() if its_texts}, merged


def _skip_reason(text: str, clip: Clip, there: Sequence[str]) -> str | None:
    if is_placeholder(text):
        return SAYS_NOTHING
    if text == clip.translation.strip():
        return COPY
    return REPEAT if text in map(str.strip, there) else None


def _resolve_clips(file: Path, given: Sequence[ClipParaphrases], clips: Sequence[Clip]) -> dict[str, Clip]:
    """The clip that each name in `file` means, where the split has it."""
    called: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:  # a name holds no `/`, so it is never another clip's id
        called[clip.id].append(clip)
        called[clip.name].append(clip)
    found = {each.clip: called[each.clip] for each in given if each.clip in called}
    if ambiguous := [name for name, its_clips in found.items() if len(its_clips) > 1]:
        recordings = summarize_names(repr(clip.recording) for clip in found[ambiguous[0]])
        raise UserError(
            f"{file}: a clip of the same name stands in several recordings: {summarize_names(map(repr, ambiguous))} "
            f"(the first in {recordings}); write recording/clip."
        )
    return {name: its_clips[0] for name, its_clips in found.items()}


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
        raise UserError(f"{file}, clip {clip!a}: half a surrogate pair (\\ud800 to \\udfff) is no text.")
    return ClipParaphrases(clip, tuple(text.strip() for text in texts))


def _read_table_entries(
    file: Path, clip_column: str, columns: Sequence[str]
) -> Iterator[ClipParaphrases | RejectedRow]:
    table = read_table(file, SEPARATORS)
    table.require(clip_column, *columns)
    others = [column for column in table.columns if column != clip_column]
    marked = [column for column in others if any(mark in column.casefold() for mark in COLUMN_MARKERS)]
    chosen = list(columns) or marked or others
    if not chosen:
        raise UserError(f"{file} has no column but {clip_column}, so it gives no paraphrases.")
    info(f"{file}: clips from the column {clip_column}, paraphrases from {', '.join(chosen)}.")
    for row in table.rows:
        if isinstance(row, RejectedRow):
            yield row
        else:
            yield ClipParaphrases(
                row.cells[clip_column].strip(), tuple(row.cells[column].strip() for column in chosen)
            )
