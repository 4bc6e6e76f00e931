"""Collects the rows of a source by split and recording, and sorts them in signing order."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.data.annotations import Recording, natural_sort_key
from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.row_validation import AcceptedClip, validate_row
from signllava_cli.prepare.importers.source import ClipOrder, RejectedRow, Source
from signllava_cli.prepare.importers.split_names import is_valid_split_name, layout_split_name, split_in_file_name


@dataclass
class CollectedSplit:
    """The rows of one split, and the files that they are from.

    `clips`: by recording and name. `skipped_texts`: keywords and paraphrases of accepted clips that are not imported.
    `conflicts`: pairs of rows of two files with different texts for the same clip.
    """

    files: dict[Path, None] = field(default_factory=dict)
    clips: dict[tuple[str, str], AcceptedClip] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    skipped_texts: list[RejectedRow] = field(default_factory=list)
    conflicts: list[tuple[AcceptedClip, AcceptedClip]] = field(default_factory=list)

    def add(self, row: AcceptedClip | RejectedRow) -> None:
        """Add `row`; of several clips with the same recording and name only the first is kept.

        Raises:
            UserError: two clips would get the same name, made of recording and times.
        """
        if isinstance(row, RejectedRow):
            self.rejected.append(row)
            return
        clip = row.clip
        first_row = self.clips.setdefault((clip.recording, clip.name), row)
        if first_row is row:
            self.skipped_texts += row.skipped_texts
            return
        if row.is_named_by_times:
            raise UserError(
                f"{first_row.where} and {row.where}: both clips would be named {clip.name}, by recording and times;"
                " remove one of the rows, or name a column of clip names with --clip."
            )
        is_same_text = first_row.clip.translation == clip.translation
        if not is_same_text and first_row.file != row.file:
            self.conflicts.append((first_row, row))
        reason = "duplicate clip" if is_same_text else "duplicate clip with another text"
        self.rejected.append(
            RejectedRow(row.where, clip.name, reason, f"{clip.translation!r}; first at {first_row.where}")
        )

    def recordings(self, order: ClipOrder) -> list[Recording]:
        """The recordings in the order of their first rows; their clips by order key (stable) or by name."""
        by_recording: dict[str, list[AcceptedClip]] = {}
        for row in self.clips.values():
            by_recording.setdefault(row.clip.recording, []).append(row)
        return [_sort_recording(name, rows, order) for name, rows in by_recording.items()]


def collect_splits(source: Source, paths: Sequence[Path], split: str | None) -> dict[str, CollectedSplit]:
    """The rows of `paths`, by split.

    `split`: the split of all rows, or, for a source with a split column, the only split to collect. Default: the
    splits in the split column, or in the names of `paths`.

    Raises:
        UserError: a file is missing or malformed, or the split of a file is unknown.
    """
    _require_existing(paths)
    _require_distinct(paths)
    only_split = None if split is None else _resolve_split_name(split)
    if source.has_split_column:
        return _collect_by_column(source, paths, only_split)
    splits: dict[str, CollectedSplit] = {}
    for path in paths:
        name = only_split or _resolve_split_name(split_in_file_name(path))
        collected = splits.setdefault(name, CollectedSplit())
        collected.files |= dict.fromkeys(source.files(path))
        for row in source.rows(path):
            collected.add(row if isinstance(row, RejectedRow) else validate_row(row))
    return splits


def _collect_by_column(source: Source, paths: Sequence[Path], only_split: str | None) -> dict[str, CollectedSplit]:
    splits: dict[str, CollectedSplit] = {}
    without_split: list[RejectedRow] = []
    num_ignored: Counter[str] = Counter()  # rows of other splits, by split
    layout_name_of: dict[str, str] = {}  # name of a split in the source -> in the layout
    for path in paths:
        for row in source.rows(path):
            if isinstance(row, RejectedRow):
                without_split.append(row)
                continue
            name = row.split or ""
            if name not in layout_name_of and is_valid_split_name(layout_split_name(name)):
                layout_name_of[name] = _resolve_split_name(name)
            if name not in layout_name_of:
                without_split.append(RejectedRow(row.where, row.name or "", "split", f"the split is {name!r}"))
            elif only_split and layout_name_of[name] != only_split:
                num_ignored[layout_name_of[name]] += 1
            else:
                splits.setdefault(layout_name_of[name], CollectedSplit()).add(validate_row(row))
    if not layout_name_of:
        example = f"; {without_split[0].describe()}" if without_split else ""
        raise UserError(f"{paths[0]}: no row has a valid split{example}. Check the split column.")
    counts = ", ".join(f"{name} {count}" for name, count in num_ignored.items())
    if only_split and only_split not in splits:
        raise UserError(f"{paths[0]}: no row is of split {only_split}; its splits: {counts or 'none'}.")
    if num_ignored:
        info(f"Only {only_split} is imported; rows of other splits: {counts}.")
    files = dict.fromkeys(file for path in paths for file in source.files(path))
    for collected in splits.values():
        collected.files = files
        collected.rejected += without_split  # they could belong to any split
    return splits


def _resolve_split_name(name: str) -> str:
    """The layout's name of split `name`; prints it if it differs."""
    layout_name = layout_split_name(name)
    if not is_valid_split_name(layout_name):
        raise UserError(f"--split {name!r}: expected letters, digits, `_`, `-` and `.`.")
    if layout_name != name:
        info(f"Split {name} is renamed to {layout_name}.")
    return layout_name


def _require_existing(paths: Sequence[Path]) -> None:
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} cannot be read: no such file or folder.")


def _require_distinct(paths: Sequence[Path]) -> None:
    repeated = [str(path) for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if repeated:
        raise UserError(f"{repeated[0]} is named twice; name each file once.")


def _sort_recording(name: str, rows: Sequence[AcceptedClip], order: ClipOrder) -> Recording:
    if order == "name":
        ordered = sorted(rows, key=lambda row: natural_sort_key(row.clip.name))
    else:
        ordered = sorted(rows, key=lambda row: row.order)
    return Recording(
        name, tuple(dataclasses.replace(row.clip, position=position) for position, row in enumerate(ordered))
    )
