"""A source's annotations, written as `annotation.{split}.json` with a report of what became of every row."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from signllava_cli.console import say, show_table, warn
from signllava_cli.data.annotation_file import first_state
from signllava_cli.data.annotations import Recording, annotation_file
from signllava_cli.data.importers.gathering import GatheredSplit, gather
from signllava_cli.data.importers.source import Source
from signllava_cli.data.writing import write_annotations
from signllava_cli.errors import UserError, first_names
from signllava_cli.files import only_process, read_json, sha256_of, write_json


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
    gathered = gather(source, paths, split)
    _require_clips(gathered)
    _require_one_text(gathered)
    with only_process(out):
        return _write(source, paths, out, split, gathered, overwrite)


def _write(
    source: Source,
    paths: Sequence[Path],
    out: Path,
    split: str | None,
    gathered: Mapping[str, GatheredSplit],
    overwrite: bool,
) -> dict[str, list[Recording]]:
    recordings = {name: here.recordings(source.order) for name, here in gathered.items()}
    checksums = {file: _checksum(file) for here in gathered.values() for file in here.files}
    reports = {
        name: {
            "source": source.name,
            "settings": {**source.settings, "annotations": [str(path) for path in paths], "split": split},
            "files": [checksums[file] for file in here.files],
            **_account(here, recordings[name]),
        }
        for name, here in gathered.items()
    }
    done = [] if overwrite else _imported_before(out, reports)
    for name in done:
        say(f"{name}: imported before from the same files by the same settings; {annotation_file(out, name)} stays.")
    for name in (name for name in reports if name not in done):
        write_json(report_file(out, name), reports[name])  # first: no annotation file without its report
        write_annotations(out, name, recordings[name])
        first_state(annotation_file(out, name)).unlink(missing_ok=True)  # of the file that this one replaces
    _show(f"{source.name} in {out}", reports)
    for name, report in reports.items():
        _name_rows(name, report, report_file(out, name))
    return recordings


def report_file(out: Path, split: str) -> Path:
    """`import.{split}.json`, beside the annotation file whose origin it tells."""
    return out / f"import.{split}.json"


def _require_clips(gathered: Mapping[str, GatheredSplit]) -> None:
    for name, here in gathered.items():
        if not here.clips:
            file = next(iter(here.files))
            example = f"; {here.rejected[0].told()}" if here.rejected else ""
            raise UserError(f"{file}: none of the {len(here.rejected)} rows of {name} is usable{example}.")


def _imported_before(out: Path, reports: Mapping[str, dict[str, Any]]) -> list[str]:
    """The splits whose annotation was made by the import that `reports` tell of.

    Raises:
        UserError: an annotation was made otherwise.
    """
    there = [name for name in reports if annotation_file(out, name).exists()]
    others = [
        str(annotation_file(out, name))
        for name in there
        if not report_file(out, name).exists() or read_json(report_file(out, name)) != _as_read(reports[name])
    ]
    if others:
        raise UserError(
            f"{', '.join(others)} is there already, and was not made by this import: --overwrite replaces it, or "
            "choose another --out."
        )
    return there


def _as_read(report: dict[str, Any]) -> Any:
    """`report` as JSON gives it back."""
    return json.loads(json.dumps(report))


def _require_one_text(gathered: Mapping[str, GatheredSplit]) -> None:
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
    return {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256_of(file)}


def _account(here: GatheredSplit, recordings: Sequence[Recording]) -> dict[str, Any]:
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


def _show(title: str, reports: Mapping[str, dict[str, Any]]) -> None:
    rows = [[label, *(report[label] for report in reports.values())] for label in ("rows", "clips", "recordings")]
    for label, kind in (("rejected", "rejected"), ("left out", "left_out")):
        reasons = dict.fromkeys(reason for report in reports.values() for reason in report[kind])
        for reason in reasons:
            rows.append([f"{label}: {reason}", *(report[kind][reason] for report in reports.values())])
    show_table(title, ["", *reports], rows)


def _name_rows(split: str, report: dict[str, Any], file: Path) -> None:
    rejected, left_out = report["rejected_rows"], report["left_out_texts"]
    if rejected:
        named = first_names(f"{row['clip'] or row['where']}: {row['reason']}" for row in rejected)
        warn(f"{split}: {len(rejected)} rows are no usable clips ({named}); all are named in {file}.")
    if left_out:
        named = first_names(dict.fromkeys(text["clip"] for text in left_out))
        say(f"{split}: {len(left_out)} texts of clips are left out ({named}); all are named in {file}.")
