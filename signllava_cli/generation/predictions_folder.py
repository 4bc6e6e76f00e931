"""The predictions folder: one JSON object a clip, appended as it is decoded, and what made it.

Each process appends to a part of its own in `parts/`, whole lines or nothing: a line that a kill cut short is taken
back by the next run, which goes on where this one stopped. Whoever finds all clips in the parts joins them to
`predictions.jsonl`, in dataset order; so that file is there when it is complete, and not before.
`predictions.meta.json` says with what and on what it was made.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from signllava_cli.console import info
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import acquire_lock, exclusive_access, read_json, write_json, write_text
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.sign_llava_json import read_sign_llava_json

PREDICTIONS_FILE, META_FILE, PARTS_FOLDER = "predictions.jsonl", "predictions.meta.json", "parts"
SECONDS = "seconds"  # the one entry of the meta file that hypotheses do not depend on


LINE = TypeAdapter(Prediction)


def find_predictions(path: Path) -> Path:
    """The predictions file that `path` names: itself, or the one in that folder.

    Raises:
        UserError: the folder holds several folders of predictions.
    """
    if not path.is_dir() or (path / PREDICTIONS_FILE).exists():
        return path / PREDICTIONS_FILE if path.is_dir() else path
    if below := sorted(str(file.parent) for file in path.glob(f"*/{PREDICTIONS_FILE}")):
        raise UserError(f"{path} holds several predictions: name {path}/*, or one of {summarize_names(below)}.")
    return path / PREDICTIONS_FILE


def read_predictions(file: Path) -> list[Prediction]:
    """The lines of a predictions file, in the order of the file.

    Raises:
        UserError: the file is missing, or a line is not a prediction, or a clip stands twice.
    """
    if file.suffix == ".json":
        return read_sign_llava_json(file).rows
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")  # splitlines() knows too many
    except (OSError, UnicodeDecodeError) as error:
        unfinished = (file.parent / PARTS_FOLDER).is_dir() and not file.exists()
        fix = "; it is not finished: run `signllava generate` again" if unfinished else ""
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}{fix}.") from None
    return _rows(file, lines if lines != [""] else [])


def _rows(file: Path, lines: Sequence[str]) -> list[Prediction]:
    rows: dict[str, Prediction] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = LINE.validate_json(line, strict=True)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{file}, line {number}: not a prediction ({where} {first['msg']}).") from None
        if row.id in rows:
            raise UserError(f"{file}, line {number}: clip {row.id} stands twice.")
        rows[row.id] = row
    return list(rows.values())


def hash_ids(ids: Iterable[str]) -> str:
    """The first 16 hex digits of the SHA-256 of the sorted clip ids: equal hashes, equal clips."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def different_settings(folder: Path, meta: Mapping[str, Any]) -> list[str]:
    """Settings of the predictions in `folder` that `meta` has otherwise, each as `generate.num_beams 2, not 1`."""
    before, ours = _flatten_settings(read_json(folder / META_FILE)), _flatten_settings(json.loads(json.dumps(meta)))
    return [
        f"{key} {before.get(key, 'unset')}, not {ours.get(key, 'unset')}"
        for key in sorted(before.keys() | ours.keys())
        if before.get(key) != ours.get(key)
    ]


def _flatten_settings(meta: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a meta file by their dotted keys, those of `decoding` as the recipe calls them."""
    found: dict[str, Any] = {}
    for key, value in meta.items():
        if key == SECONDS:
            continue
        name = prefix + ("generate" if key == "decoding" else key)
        found |= _flatten_settings(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found


def choose_folder(folder: Path, meta: Mapping[str, Any]) -> Path:
    """`folder`; or, where it holds predictions made otherwise than `meta` says, the first of FOLDER.2, FOLDER.3, ...
    that does not. Nothing is overwritten."""
    if not (folder / META_FILE).exists() or not (different := different_settings(folder, meta)):
        return folder
    others = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(2))
    free = next(each for each in others if not (each / META_FILE).exists() or not different_settings(each, meta))
    info(f"{folder} was made with {summarize_names(different)}; using {free}")
    return free


class PredictionsFolder:
    """The predictions of a split in `folder`, being written by this process and perhaps by others.

    Args:
        meta: what makes them; a folder that holds predictions made otherwise is refused.
        part: the name of the part that this process writes, such as `1-of-8`.
        overwrite: begin anew, whatever the folder holds.

    Raises:
        UserError: the folder holds predictions of another checkpoint, dataset or setting, or another process writes
            this part.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], part: str, overwrite: bool = False) -> None:
        self.folder, self.file, self.meta_file = folder, folder / PREDICTIONS_FILE, folder / META_FILE
        self._part = folder / PARTS_FOLDER / f"{part}.jsonl"
        with exclusive_access(folder):
            self._taken = acquire_lock(
                folder / PARTS_FOLDER / f"{part}.lock",
                f"Another process is writing to {folder}: wait for it, or choose another folder.",
            )
            if overwrite or not self._holds(meta):
                for file in [self.file, *self._parts()]:
                    file.unlink(missing_ok=True)  # first, so that a kill never leaves old lines under a new meta file
                write_json(self.meta_file, meta)
            _truncate_partial_line(self._part)
            self.done = self._all_rows()

    def append(self, rows: Sequence[Prediction]) -> None:
        """Add lines to this process's part, on disk when this returns."""
        if not rows:
            return
        with open(self._part, "a", encoding="utf-8") as handle:
            for row in rows:
                handle.write(_line(row))
                self.done[row.id] = row
            handle.flush()
            os.fsync(handle.fileno())

    def join_parts(self, order: Sequence[str], seconds: float) -> bool:
        """Write the predictions file in the order of the clip ids `order`, if the parts hold them all.

        Args:
            seconds: how long this process took; the meta file sums them up.

        Returns:
            Whether it was written now: False while other processes are at work, and when it was there before.
        """
        with exclusive_access(self.folder):
            self.done = self._all_rows()
            whole = not self.file.exists() and all(clip in self.done for clip in order)
            if whole:
                write_text(self.file, "".join(_line(self.done[clip]) for clip in order))
            if self.file.exists():
                for part in self._parts():
                    part.unlink()
            meta = read_json(self.meta_file)
            write_json(self.meta_file, {**meta, SECONDS: round(meta.get(SECONDS, 0.0) + seconds, 1)})
        return whole

    def _holds(self, meta: Mapping[str, Any]) -> bool:
        """Whether predictions were begun here, by these settings."""
        if not self.meta_file.exists():
            return False
        if different := different_settings(self.folder, meta):
            raise UserError(
                f"{self.folder} holds predictions made with {summarize_names(different)}; "
                "name another --out, or pass --overwrite."
            )
        return True

    def _parts(self) -> list[Path]:
        return sorted((self.folder / PARTS_FOLDER).glob("*.jsonl"))

    def _all_rows(self) -> dict[str, Prediction]:
        """The rows of the file and of every part, by clip id; a line that another process is writing is not one."""
        files = [file for file in (self.file, *self._parts()) if file.exists()]
        return {row.id: row for file in files for row in _rows(file, _complete_lines(file))}


def _line(row: Prediction) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _complete_lines(file: Path) -> list[str]:
    return file.read_bytes().decode("utf-8", errors="replace").split("\n")[:-1]


def _truncate_partial_line(part: Path) -> None:
    content = part.read_bytes() if part.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(part, "r+b") as handle:
            handle.truncate(whole)
