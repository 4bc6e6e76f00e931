"""A source's annotations, written as `annotation.{split}.json` with a report of what became of every row."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.annotations import Recording, annotation_file
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import exclusive_access, read_json, sha256_file, write_json
from signllava_cli.prepare.annotation_edits import backup_file
from signllava_cli.prepare.dataset_writer import write_annotations
from signllava_cli.prepare.importers.collect import CollectedSplit, collect_splits
from signllava_cli.prepare.importers.source import Source


def import_annotations(
    source: Source, paths: Sequence[Path], out: Path, split: str | None = None, overwrite: bool = False
) -> dict[str, list[Recording]]:
    """Write `out/annotation.{split}.json` and `out/import.{split}.json` for every split in `paths`.

    Nothing is written unless all of it can be. An annotation that the same import made before stays as it is, with
    the keywords and paraphrases it has got since. Returns the imported recordings by split.

    Raises:
        UserError: a file is not what it should be, a split cannot be told, has no usable row, or is there already;
            two files give a clip different texts.
    """
    gathered = collect_splits(source, paths, split)
    _require_clips(gathered)
    _require_one_text(gathered)
    with exclusive_access(out):
        return _write(source, paths, out, split, gathered, overwrite)


def _write(
    source: Source,
    paths: Sequence[Path],
    out: Path,
    split: str | None,
    gathered: Mapping[str, CollectedSplit],
    overwrite: bool,
) -> dict[str, list[Recording]]:
    recordings = {name: here.recordings(source.order) for name, here in gathered.items()}
    checksums = {file: _checksum(file) for here in gathered.values() for file in here.files}
    reports = {
        name: {
            "source": source.name,
            "settings": {**source.config, "annotations": [str(path) for path in paths], "split": split},
            "files": [checksums[file] for file in here.files],
            **_count_rows(here, recordings[name]),
        }
        for name, here in gathered.items()
    }
    done = [] if overwrite else _already_imported(out, reports)
    for name in done:
        info(f"{name}: imported before from the same files by the same settings; {annotation_file(out, name)} stays.")
    for name in (name for name in reports if name not in done):
        write_json(report_file(out, name), reports[name])  # first: no annotation file without its report
        write_annotations(out, name, recordings[name])
        backup_file(annotation_file(out, name)).unlink(missing_ok=True)  # of the file that this one replaces
    _print_counts(f"{source.name} in {out}", reports)
    for name, report in reports.items():
        _report_rows(name, report, report_file(out, name))
    return recordings


def report_file(out: Path, split: str) -> Path:
    """`import.{split}.json`, beside the annotation file whose origin it tells."""
    return out / f"import.{split}.json"


def _require_clips(gathered: Mapping[str, CollectedSplit]) -> None:
    for name, here in gathered.items():
        if not here.clips:
            file = next(iter(here.files))
            example = f"; {here.rejected[0].told()}" if here.rejected else ""
            raise UserError(f"{file}: none of the {len(here.rejected)} rows of {name} is usable{example}.")


def _already_imported(out: Path, reports: Mapping[str, dict[str, Any]]) -> list[str]:
    """The splits whose annotation was made by the import that `reports` tell of.

    Raises:
        UserError: an annotation was made otherwise.
    """
    there = [name for name in reports if annotation_file(out, name).exists()]
    others = [
        str(annotation_file(out, name))
        for name in there
        if not report_file(out, name).exists() or read_json(report_file(out, name)) != _json_round_trip(reports[name])
    ]
    if others:
        raise UserError(
            f"{', '.join(others)} is there already, and was not made by this import: --overwrite replaces it, or "
            "choose another --out."
        )
    return there


def _json_round_trip(report: dict[str, Any]) -> Any:
    """`report` as JSON gives it back."""
    return json.loads(json.dumps(report))


def _require_one_text(gathered: Mapping[str, CollectedSplit]) -> None:
    for name, here in gathered.items():
        if here.conflicts:
            first, other = here.conflicts[0]
            count = f"{len(here.conflicts)} clip{'s' if here.conflicts[1:] else ''}"
            texts = f"{first.clip.translation!r} and {other.clip.translation!r}"
            raise UserError(
                f"{first.file} and {other.file} give {count} of {name} different texts"
                f" (first {first.clip.name}: {texts}): name one of them alone."
            )


def _checksum(file: Path) -> dict[str, Any]:
    return {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256_file(file)}


def _count_rows(here: CollectedSplit, recordings: Sequence[Recording]) -> dict[str, Any]:
    return {
        "rows": len(here.clips) + len(here.rejected),
        "clips": len(here.clips),
        "recordings": len(recordings),
        "source_columns": list(dict.fromkeys(column for row in here.clips.values() for column in row.clip.source)),
        "rejected": Counter(row.reason for row in here.rejected),
        "left_out": Counter(text.reason for text in here.left_out),
        "rejected_rows": [asdict(row) for row in here.rejected],
        "left_out_texts": [asdict(text) for text in here.left_out],
    }


def _print_counts(title: str, reports: Mapping[str, dict[str, Any]]) -> None:
    rows = [[label, *(report[label] for report in reports.values())] for label in ("rows", "clips", "recordings")]
    for label, kind in (("rejected", "rejected"), ("left out", "left_out")):
        reasons = dict.fromkeys(reason for report in reports.values() for reason in report[kind])
        for reason in reasons:
            rows.append([f"{label}: {reason}", *(report[kind][reason] for report in reports.values())])
    print_table(title, ["", *reports], rows)


def _report_rows(split: str, report: dict[str, Any], file: Path) -> None:
    rejected, left_out = report["rejected_rows"], report["left_out_texts"]
    if rejected:
        named = summarize_names(f"{row['clip'] or row['where']}: {row['reason']}" for row in rejected)
        warning(f"{split}: {len(rejected)} rows are no usable clips ({named}); all are named in {file}.")
    if left_out:
        named = summarize_names(dict.fromkeys(text["clip"] for text in left_out))
        info(f"{split}: {len(left_out)} texts of clips are left out ({named}); all are named in {file}.")
