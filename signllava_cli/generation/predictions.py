"""The predictions file: one JSON object a clip, appended as it is decoded, and what made it.

`predictions.jsonl` is whole lines or nothing: a line that a kill cut short is taken back on the next run, which
goes on where this one stopped. `predictions.meta.json` says with what and on what it was made.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from signllava_cli.data.annotations import ContextBound
from signllava_cli.errors import UserError, first_names
from signllava_cli.files import read_json, take_folder, write_json, write_text

PREDICTIONS, META = "predictions.jsonl", "predictions.meta.json"
SECONDS = "seconds"  # the one entry of the meta file that hypotheses do not depend on


@dataclass(frozen=True)
class Prediction:
    """One clip's line.

    `context`: the sentences it really saw, `context_source`: where they came from. `score`: mean
    log-probability of the hypothesis. `finished`: it ended by itself. `cut_frames`, `cut_sentences`: lost to
    the token budget. `missing`: streams without features; such a clip has an empty hypothesis.
    `context_bound`: the corpus's mark, if any.
    """

    recording: str
    clip: str
    position: int
    task: str
    reference: str
    hypothesis: str
    context: list[str] = field(default_factory=list)
    context_source: str = "none"
    score: float | None = None
    finished: bool = True
    cut_frames: int = 0
    cut_sentences: int = 0
    missing: str | None = None
    context_bound: ContextBound | None = None

    @property
    def id(self) -> str:
        """`recording/clip`."""
        return f"{self.recording}/{self.clip}"


LINE = TypeAdapter(Prediction)


def find_predictions(path: Path) -> Path:
    """The predictions file that `path` names: itself, or the one in that folder.

    Raises:
        UserError: the folder holds several folders of predictions.
    """
    if not path.is_dir() or (path / PREDICTIONS).exists():
        return path / PREDICTIONS if path.is_dir() else path
    if below := sorted(str(file.parent) for file in path.glob(f"*/{PREDICTIONS}")):
        raise UserError(f"{path} holds several predictions: name {path}/*, or one of {first_names(below)}.")
    return path / PREDICTIONS


def read_predictions(file: Path) -> list[Prediction]:
    """The lines of a predictions file, in the order of the file.

    Raises:
        UserError: the file is missing, or a line is not a prediction, or a clip stands twice.
    """
    try:
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines() knows too many
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(f"{file} cannot be read: {getattr(fault, 'strerror', None) or fault}.") from None
    rows: dict[str, Prediction] = {}
    for number, line in enumerate(lines if lines != [""] else [], start=1):
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


def ids_hash(ids: Iterable[str]) -> str:
    """The first 16 hex digits of the SHA-256 of the sorted clip ids: equal hashes, equal clips."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


class PredictionsFile:
    """A predictions file being written in `folder`.

    Args:
        meta: what makes it; a folder that holds predictions made otherwise is refused.

    Raises:
        UserError: the folder holds predictions of another checkpoint, dataset or setting.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], overwrite: bool = False) -> None:
        self._taken = take_folder(folder)
        self.file, self.meta_file = folder / PREDICTIONS, folder / META
        meta = json.loads(json.dumps(meta))
        if self.file.exists() and not overwrite:
            before = read_json(self.meta_file)
            keys = (before.keys() | meta.keys()) - {SECONDS}
            differing = sorted(key for key in keys if before.get(key) != meta.get(key))
            if differing:
                raise UserError(
                    f"{folder} holds predictions made otherwise ({', '.join(differing)} differ); "
                    "name another --out, or pass --overwrite."
                )
            self._take_back_half_a_line()
        else:
            self.file.unlink(missing_ok=True)  # first, so that a kill never leaves old lines under a new meta file
            write_json(self.meta_file, meta)
            write_text(self.file, "")
        self.done = {row.id: row for row in read_predictions(self.file)}

    def append(self, rows: Sequence[Prediction]) -> None:
        """Add lines, on disk when this returns."""
        with open(self.file, "a", encoding="utf-8") as handle:
            for row in rows:
                handle.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
                self.done[row.id] = row
            handle.flush()
            os.fsync(handle.fileno())

    def finish(self, order: Sequence[str], seconds: float) -> None:
        """Rewrite the finished file in the order of the clip ids `order`, and add `seconds` to its meta file."""
        lines = [json.dumps(asdict(self.done[clip]), ensure_ascii=False) + "\n" for clip in order]
        write_text(self.file, "".join(lines))
        meta = read_json(self.meta_file)
        write_json(self.meta_file, {**meta, SECONDS: round(meta.get(SECONDS, 0.0) + seconds, 1)})

    def _take_back_half_a_line(self) -> None:
        content = self.file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with open(self.file, "r+b") as handle:
                handle.truncate(whole)
