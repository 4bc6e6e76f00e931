"""Writes the annotations of a source as `annotation.{split}.json`, with a report on the rejected rows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.annotations import Recording, annotation_file
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.files import exclusive_access, read_json, sha256_file, write_json
from signllava_cli.prepare.annotation_edits import backup_file
from signllava_cli.prepare.dataset_writer import write_annotations
from signllava_cli.prepare.importers.collect import CollectedSplit, collect_splits
from signllava_cli.prepare.importers.source import Source


def import_annotations(
    source: Source, paths: Sequence[Path], out: Path, split: str | None = None, overwrite: bool = False
) -> dict[str, list[Recording]]:
    """Write `out/annotation.{split}.json` and `out/import.{split}.json` for every split in `paths`.

    If one split cannot be imported, no file is written. An annotation file of the same import is kept, with the
    keywords and paraphrases added since. Returns the imported recordings by split.

    Raises:
        UserError: a file is missing or malformed; a split is unknown, has no valid row, or exists already; two files
            have different texts for the same clip.
    """
    splits = collect_splits(source, paths, split)
    _require_clips(splits)
    _require_one_text(splits)
    with exclusive_access(out):
        return _write(source, paths, out, split, splits, overwrite)


def _write(
    source: Source,
    paths: Sequence[Path],
    out: Path,
    split: str | None,
    splits: Mapping[str, CollectedSplit],
    overwrite: bool,
) -> dict[str, list[Recording]]:
    recordings = {name: collected.recordings(source.order) for name, collected in splits.items()}
    checksums = {file: _checksum(file) for collected in splits.values() for file in collected.files}
    reports = {
        name: {
            "source": source.name,
            "settings": {**source.config, "annotations": [str(path) for path in paths], "split": split},
            "files": [checksums[file] for file in collected.files],
            **_count_rows(collected, recordings[name]),
        }
        for name, collected in splits.items()
    }
    unchanged = [] if overwrite else _already_imported(out, reports)
    for name in unchanged:
        info(f"{name}: the same import was made before; {annotation_file(out, name)} is kept.")
    for name in (name for name in reports if name not in unchanged):
        write_json(report_file(out, name), reports[name])  # first: no annotation file without its report
        write_annotations(out, name, recordings[name])
        backup_file(annotation_file(out, name)).unlink(missing_ok=True)  # the backup of the replaced file
    _print_counts(f"{source.name} in {out}", reports)
    for name, report in reports.items():
        _print_rejected(name, report, report_file(out, name))
    return recordings


def report_file(out: Path, split: str) -> Path:
    """`import.{split}.json`: the report beside the annotation file."""
    return out / f"import.{split}.json"


def _require_clips(splits: Mapping[str, CollectedSplit]) -> None:
    for name, collected in splits.items():
        if not collected.clips:
            file = next(iter(collected.files))
            example = f"; {collected.rejected[0].describe()}" if collected.rejected else ""
            raise UserError(f"{file}: none of the {len(collected.rejected)} rows of {name} is valid{example}.")


def _already_imported(out: Path, reports: Mapping[str, dict[str, Any]]) -> list[str]:
    """The splits whose annotation file is from the import that `reports` describe.

    Raises:
        UserError: an annotation file is from another import.
    """
    existing = [name for name in reports if annotation_file(out, name).exists()]
    conflicts = [
        str(annotation_file(out, name))
        for name in existing
        if not report_file(out, name).exists() or read_json(report_file(out, name)) != _json_round_trip(reports[name])
    ]
    if conflicts:
        raise UserError(
            f"{', '.join(conflicts)} exists already and is not from this import; give --overwrite to replace it, or "
            "choose another --out."
        )
    return existing


def _json_round_trip(report: dict[str, Any]) -> Any:
    """`report` as it is read from JSON."""
    return json.loads(json.dumps(report))


def _require_one_text(splits: Mapping[str, CollectedSplit]) -> None:
    for name, collected in splits.items():
        if collected.conflicts:
            first, second = collected.conflicts[0]
            count = format_count(len(collected.conflicts), "clip")
            texts = f"{first.clip.translation!r} and {second.clip.translation!r}"
            raise UserError(
                f"{first.file} and {second.file} have different texts for {count} of {name}"
                f" (first {first.clip.name}: {texts}); name only one of them."
            )


def _checksum(file: Path) -> dict[str, Any]:
    return {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256_file(file)}


def _count_rows(collected: CollectedSplit, recordings: Sequence[Recording]) -> dict[str, Any]:
    return {
        "rows": len(collected.clips) + len(collected.rejected),
        "clips": len(collected.clips),
        "recordings": len(recordings),
        "source_columns": list(
            dict.fromkeys(column for row in collected.clips.values() for column in row.clip.source)
        ),
        "rejected": Counter(row.reason for row in collected.rejected),
        "skipped": Counter(text.reason for text in collected.skipped_texts),
        "rejected_rows": [asdict(row) for row in collected.rejected],
        "skipped_texts": [asdict(text) for text in collected.skipped_texts],
    }


def _print_counts(title: str, reports: Mapping[str, dict[str, Any]]) -> None:
    rows = [[label, *(report[label] for report in reports.values())] for label in ("rows", "clips", "recordings")]
    for label in ("rejected", "skipped"):
        reasons = dict.fromkeys(reason for report in reports.values() for reason in report[label])
        for reason in reasons:
            rows.append([f"{label}: {reason}", *(report[label][reason] for report in reports.values())])
    print_table(title, ["", *reports], rows)


def _print_rejected(split: str, report: dict[str, Any], file: Path) -> None:
    rejected, skipped = report["rejected_rows"], report["skipped_texts"]
    if rejected:
        names = summarize_names(f"{row['clip'] or row['where']}: {row['reason']}" for row in rejected)
        count = format_count(len(rejected), "row is", "rows are")
        warning(f"{split}: {count} rejected ({names}); {file} lists all of them.")
    if skipped:
        names = summarize_names(dict.fromkeys(text["clip"] for text in skipped))
        count = format_count(len(skipped), "keyword or paraphrase is", "keywords and paraphrases are")
        info(f"{split}: {count} skipped ({names}); {file} lists all of them.")
