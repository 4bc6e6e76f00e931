"""The rows of a source, gathered by split and recording, and put in signing order."""

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
    """What the rows of one split came to, and the files that they stood in.

    `conflicts`: clips to which two files give different texts, as the first row and the later one.
    """

    files: dict[Path, None] = field(default_factory=dict)
    clips: dict[tuple[str, str], AcceptedClip] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    left_out: list[RejectedRow] = field(default_factory=list)
    conflicts: list[tuple[AcceptedClip, AcceptedClip]] = field(default_factory=list)

    def add(self, row: AcceptedClip | RejectedRow) -> None:
        """Take `row` in; of clips of one recording and name the first is kept.

        Raises:
            UserError: two clips would get one name that is made of recording and times.
        """
        if isinstance(row, RejectedRow):
            self.rejected.append(row)
            return
        clip = row.clip
        first = self.clips.setdefault((clip.recording, clip.name), row)
        if first is row:
            self.left_out += row.left_out
            return
        if row.named_by_times:
            raise UserError(
                f"{first.where} and {row.where}: both clips would be named {clip.name}, after recording and times:"
                " remove one of the rows, or name a column of clip names with --clip."
            )
        same = first.clip.translation == clip.translation
        if not same and first.file != row.file:
            self.conflicts.append((first, row))
        reason = "clip given twice" if same else "clip given twice, with another text"
        self.rejected.append(
            RejectedRow(row.where, clip.name, reason, f"{clip.translation!r}; first at {first.where}")
        )

    def recordings(self, order: ClipOrder) -> list[Recording]:
        """The recordings in the order of their first rows, each one's clips by order key (stable) or by name."""
        by_recording: dict[str, list[AcceptedClip]] = {}
        for row in self.clips.values():
            by_recording.setdefault(row.clip.recording, []).append(row)
        return [_sorted_recording(name, rows, order) for name, rows in by_recording.items()]


def collect_splits(source: Source, paths: Sequence[Path], split: str | None) -> dict[str, CollectedSplit]:
    """The splits of the layout that `paths` hold.

    `split` is what all rows belong to, or, for a source with a split column, the one split that is wanted. Without
    it the split column tells, or the names of `paths`.

    Raises:
        UserError: a file cannot be read as what it should be, or no split can be told.
    """
    _require_existing(paths)
    _require_distinct(paths)
    wanted = None if split is None else _layout_split_name(split)
    if source.has_split_column:
        return _collect_by_column(source, paths, wanted)
    gathered: dict[str, CollectedSplit] = {}
    for path in paths:
        here = gathered.setdefault(wanted or _layout_split_name(split_in_file_name(path)), CollectedSplit())
        here.files |= dict.fromkeys(source.files(path))
        for row in source.rows(path):
            here.add(row if isinstance(row, RejectedRow) else validate_row(row))
    return gathered


def _collect_by_column(source: Source, paths: Sequence[Path], wanted: str | None) -> dict[str, CollectedSplit]:
    gathered: dict[str, CollectedSplit] = {}
    unplaced: list[RejectedRow] = []
    elsewhere: Counter[str] = Counter()
    called: dict[str, str] = {}  # each name of a split in the source, and in the layout
    for path in paths:
        for row in source.rows(path):
            if isinstance(row, RejectedRow):
                unplaced.append(row)
                continue
            name = row.split or ""
            if name not in called and is_valid_split_name(layout_split_name(name)):
                called[name] = _layout_split_name(name)
            if name not in called:
                unplaced.append(RejectedRow(row.where, row.name or "", "split", f"the split is called {name!r}"))
            elif wanted and called[name] != wanted:
                elsewhere[called[name]] += 1
            else:
                gathered.setdefault(called[name], CollectedSplit()).add(validate_row(row))
    if not called:
        example = f"; {unplaced[0].told()}" if unplaced else ""
        raise UserError(f"{paths[0]}: no row tells its split{example}.")
    counts = ", ".join(f"{name} {count}" for name, count in elsewhere.items())
    if wanted and wanted not in gathered:
        raise UserError(f"{paths[0]}: no row is of split {wanted}; splits there: {counts or 'none'}.")
    if elsewhere:
        info(f"Only {wanted} is imported; rows of other splits: {counts}.")
    files = dict.fromkeys(file for path in paths for file in source.files(path))
    for here in gathered.values():
        here.files = files
        here.rejected += unplaced  # they could be of any split
    return gathered


def _layout_split_name(name: str) -> str:
    """The layout's name of split `name`, said where it is another."""
    in_layout = layout_split_name(name)
    if not is_valid_split_name(in_layout):
        raise UserError(f"--split {name!r}: a split's name may hold letters, digits, `_`, `-` and `.`.")
    if in_layout != name:
        info(f"Split {name} is called {in_layout} here.")
    return in_layout


def _require_existing(paths: Sequence[Path]) -> None:
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise UserError(f"{absent[0]} cannot be read: no such file or folder.")


def _require_distinct(paths: Sequence[Path]) -> None:
    twice = [str(path) for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: name each file once.")


def _sorted_recording(name: str, rows: Sequence[AcceptedClip], order: ClipOrder) -> Recording:
    if order == "name":
        ordered = sorted(rows, key=lambda row: natural_sort_key(row.clip.name))
    else:
        ordered = sorted(rows, key=lambda row: row.order)
    return Recording(
        name, tuple(dataclasses.replace(row.clip, position=position) for position, row in enumerate(ordered))
    )
