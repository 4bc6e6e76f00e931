"""The predictions folder: one JSON object per clip, appended when the clip is decoded, and the settings of the run.

Each process appends to its own part in `parts/`. A killed process may leave a partial line, which the next run
removes before it continues. The process that finds all clips in the parts joins them to `predictions.jsonl`, in
dataset order, so that file exists only when it is complete. `predictions.meta.json` stores the checkpoint, the data
and the settings.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from signllava_cli.console import info
from signllava_cli.errors import UserError, first_validation_error, summarize_names
from signllava_cli.files import (
    acquire_lock,
    append_text,
    exclusive_access,
    read_json,
    reject_duplicate_keys,
    require_own_file,
    write_json,
    write_text,
)
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.sign_llava_json import read_sign_llava_json
from signllava_cli.recipe import flatten

PREDICTIONS_FILE, META_FILE, PARTS_FOLDER = "predictions.jsonl", "predictions.meta.json", "parts"
SECONDS, DECODER = "seconds", "decoder"  # the entries of the meta file that hypotheses do not depend on
LINE = TypeAdapter(Prediction)


def find_predictions(path: Path) -> Path:
    """The predictions file of `path`: the file itself, or the one in that folder.

    Raises:
        UserError: the folder holds several folders of predictions.
    """
    if not path.is_dir() or (path / PREDICTIONS_FILE).exists():
        return path / PREDICTIONS_FILE if path.is_dir() else path
    if below := sorted(str(file.parent) for file in path.glob(f"*/{PREDICTIONS_FILE}")):
        raise UserError(f"{path} holds several predictions; name {path}/*, or one of {summarize_names(below)}.")
    return path / PREDICTIONS_FILE


def read_predictions(file: Path) -> list[Prediction]:
    """The lines of a predictions file, in the order of the file.

    Raises:
        UserError: the file is missing, a line is not a prediction, or a clip has two lines.
    """
    return list(_by_id(file, iterate_predictions(file)).values())


def iterate_predictions(file: Path) -> Iterator[Prediction]:
    """Yield the lines of a predictions file, one at a time: a clip may have two of them.

    Raises:
        UserError: the file is missing, or a line is not a prediction.
    """
    if file.suffix.lower() == ".json":
        yield from read_sign_llava_json(file).rows
        return
    try:
        with open(file, encoding="utf-8-sig") as lines:  # splitlines() would also split at Unicode separators
            yield from _parse_lines(file, (line.removesuffix("\n") for line in lines))
    except (OSError, UnicodeDecodeError) as error:
        is_unfinished = (file.parent / PARTS_FOLDER).is_dir() and not file.exists()
        fix = "; it is not finished: run `signllava generate` again" if is_unfinished else ""
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}{fix}.") from None


def _parse_lines(file: Path, lines: Iterable[str]) -> Iterator[Prediction]:
    for number, line in enumerate(lines, start=1):
        try:
            row = LINE.validate_json(line, strict=True)
            json.loads(line, object_pairs_hook=reject_duplicate_keys)  # pydantic would keep the last value
        except ValidationError as invalid:
            raise UserError(f"{file}, line {number}: not a prediction ({first_validation_error(invalid)}).") from None
        except ValueError as duplicate:
            raise UserError(f"{file}, line {number}: not a prediction ({duplicate}); remove one.") from None
        yield row


def _by_id(file: Path, rows: Iterable[Prediction]) -> dict[str, Prediction]:
    """The `rows` of `file`, one for each line, by clip id.

    Raises:
        UserError: a clip has two lines.
    """
    by_id: dict[str, Prediction] = {}
    for number, row in enumerate(rows, start=1):
        if row.id in by_id:
            raise UserError(f"{file}, line {number}: clip {row.id} is already in an earlier line.")
        by_id[row.id] = row
    return by_id


def hash_ids(ids: Iterable[str]) -> str:
    """The first 16 hex digits of the SHA-256 of the sorted clip ids: equal hashes, equal clips."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def different_settings(folder: Path, meta: Mapping[str, Any]) -> list[str]:
    """Settings of the predictions in `folder` that differ in `meta`, each as `generate.num_beams 2, not 1`."""
    stored, new = _flatten_settings(read_json(folder / META_FILE)), _flatten_settings(json.loads(json.dumps(meta)))
    return [
        f"{key} {stored.get(key, 'unset')}, not {new.get(key, 'unset')}"
        for key in sorted(stored.keys() | new.keys())
        if stored.get(key) != new.get(key)
    ]


def _flatten_settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a meta file by their dotted keys; those of `decoding` have the keys of the recipe."""
    settings = {key: value for key, value in meta.items() if key not in (SECONDS, DECODER)}
    return flatten({"generate" if key == "decoding" else key: value for key, value in settings.items()})


def choose_folder(folder: Path, meta: Mapping[str, Any]) -> Path:
    """The first of `folder`, FOLDER.2, FOLDER.3, ... that holds no predictions, or those of the same `meta`."""
    if not (folder / META_FILE).exists() or not (different := different_settings(folder, meta)):
        return folder
    candidates = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(2))
    chosen = next(
        candidate
        for candidate in candidates
        if not (candidate / META_FILE).exists() or not different_settings(candidate, meta)
    )
    info(f"{folder} was made with {summarize_names(different)}; using {chosen}")
    return chosen


class PredictionsFolder:
    """The predictions of a split in `folder`, written by this process and perhaps by others.

    `rows`: clip id -> prediction, of this process and, as of the last reading, of the others.

    Args:
        meta: the checkpoint, data and settings; they must be those of the predictions in the folder.
        part: the name of the part that this process writes, such as `1-of-8`.
        overwrite: delete the predictions in the folder first.

    Raises:
        UserError: the folder holds predictions of another checkpoint, dataset or setting, or another process writes
            the same part.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], part: str, overwrite: bool = False) -> None:
        self.folder, self.file, self.meta_file = folder, folder / PREDICTIONS_FILE, folder / META_FILE
        self._part = folder / PARTS_FOLDER / f"{part}.jsonl"
        with exclusive_access(folder):
            require_own_file(self._part)
            self._lock = acquire_lock(
                folder / PARTS_FOLDER / f"{part}.lock",
                f"Another process is writing to {folder}; wait for it, or choose another folder.",
            )
            # listed before the meta file is looked for: processes that start at the same time write theirs later
            old = [file for file in (self.file, *self._parts()) if file.exists()]
            if overwrite or not self._has_predictions(meta):
                for file in old:
                    file.unlink(missing_ok=True)  # before the new meta file, which must never describe old lines
                write_json(self.meta_file, meta, is_shared=True)
            _truncate_partial_line(self._part)
            self.rows = self._read_all()

    def append(self, rows: Sequence[Prediction]) -> None:
        """Append lines to this process's part. They are on disk when this returns.

        Raises:
            UserError: the disk is full or not writable.
        """
        if rows:
            append_text(self._part, "".join(map(_format_line, rows)), is_flushed=True)
            self.rows.update((row.id, row) for row in rows)

    def join_parts(self, order: Sequence[str], seconds: float) -> bool:
        """Write the predictions file if the parts hold all the clips.

        Args:
            order: clip ids in the order of the file.
            seconds: how long this process took; the meta file stores the sum over processes.

        Returns:
            Whether this call wrote the file: False if clips are missing, or if it existed before.
        """
        with exclusive_access(self.folder):
            self.rows = self._read_all()
            is_complete = not self.file.exists() and all(clip_id in self.rows for clip_id in order)
            if is_complete:
                lines = "".join(_format_line(self.rows[clip_id]) for clip_id in order)
                write_text(self.file, lines, is_shared=True)
            if self.file.exists():
                for part in self._parts():
                    part.unlink(missing_ok=True)
            meta = read_json(self.meta_file)
            total = round(meta.get(SECONDS, 0.0) + seconds, 1)
            write_json(self.meta_file, {**meta, SECONDS: total}, is_shared=True)
        return is_complete

    def _has_predictions(self, meta: Mapping[str, Any]) -> bool:
        """Whether the folder holds predictions of these settings; those of other settings are an error."""
        if not self.meta_file.exists():
            return False
        if different := different_settings(self.folder, meta):
            raise UserError(
                f"{self.folder} holds predictions made with {summarize_names(different)}; "
                "name another --out, or pass --keep-others or --overwrite."
            )
        return True

    def _parts(self) -> list[Path]:
        return sorted((self.folder / PARTS_FOLDER).glob("*.jsonl"))

    def _read_all(self) -> dict[str, Prediction]:
        """Clip id -> prediction, of the file and of every part; a line that is being written is ignored.

        The parts are read first: another process removes them after it has written the file.
        """
        files = [*self._parts(), self.file]
        rows: dict[str, Prediction] = {}
        for file in files:
            rows |= _by_id(file, _parse_lines(file, _complete_lines(file)))
        return rows


def _format_line(row: Prediction) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _complete_lines(file: Path) -> list[str]:
    """The lines of `file` that end in a newline; none if there is no such file."""
    try:
        return file.read_bytes().decode("utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []


def _truncate_partial_line(part: Path) -> None:
    content = part.read_bytes() if part.exists() else b""
    complete_size = content.rfind(b"\n") + 1
    if complete_size < len(content):
        with open(part, "r+b") as handle:
            handle.truncate(complete_size)
