"""Reads systems from files: our predictions, Sign_LLaVA's JSON, CSV and TSV tables, plain text."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from signllava_cli.console import warning
from signllava_cli.errors import UserError, escape_unprintable, format_count, summarize_names
from signllava_cli.evaluation.systems import TRANSLATION, UNKNOWN, System
from signllava_cli.files import read_json, read_text
from signllava_cli.generation.instructions import NO_KEYWORD
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import (
    META_FILE,
    PREDICTIONS_FILE,
    find_predictions,
    hash_ids,
    read_predictions,
)
from signllava_cli.generation.sign_llava_json import NO_HYPOTHESIS, read_sign_llava_json

MissingPolicy = Literal["empty", "exclude"]
SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of tables of uid and text
MAX_TEXT_CHARACTERS = 100_000  # chrF takes some 400 bytes of memory for each
PLAIN_TEXT = (".txt", ".hyp", ".ref")
# keys of `decoding` in predictions.meta.json that an experiment varies on purpose, and that the names of systems show
VARIED_SETTINGS = {"context_source", "missing_context", "task", "seed", "ablate", "features"}


def read_systems(arguments: Sequence[str], references: Path | None, missing: MissingPolicy) -> list[System]:
    """The systems in files: predictions files or folders, Sign_LLaVA's JSON, or tables (CSV, TSV) of uid and text.

    Args:
        arguments: `FILE`, or `NAME=FILE` with the name of the system; files of one name are runs of one system with
            several seeds.
        references: a file of any of these kinds with the references; tables need one.
        missing: whether clips without a hypothesis count as empty or are excluded.

    Raises:
        UserError: a file cannot be read, is unfinished, or has no clip with a reference; two systems have one name.
    """
    gold = None if references is None else _read_references(references.expanduser())
    names, files = zip(*map(split_name, arguments), strict=True)
    return _assign_names([_read_system(file, gold, missing) for file in files], names)


def split_name(argument: str) -> tuple[str | None, Path]:
    """The name, if any, and the path in `NAME=FILE`; a path that exists, or has a `/` before its `=`, has no name."""
    name, equals, file = argument.partition("=")
    if not equals or "/" in name or Path(argument).expanduser().exists():
        return None, Path(argument).expanduser()
    if not name.strip():
        raise UserError(f"{argument}: expected NAME=FILE, or FILE.")
    return name.strip(), Path(file).expanduser()


def read_texts(arguments: Sequence[str], references: Path) -> list[System]:
    """The systems in plain text files, `FILE` or `NAME=FILE`, with a clip per line; each line is its own recording.

    Raises:
        UserError: a file cannot be read, or its number of lines differs from that of the references.
    """
    names, files = zip(*map(split_name, arguments), strict=True)
    reference_lines = _read_lines(references)
    return _assign_names([_read_text_system(file, references, reference_lines) for file in files], names)


def _read_text_system(file: Path, references: Path, reference_lines: Sequence[str]) -> System:
    lines = _read_lines(file)
    if len(lines) != len(reference_lines):
        raise UserError(
            f"{file} has {len(lines)} lines and {references} has {len(reference_lines)}; give one reference per line."
        )
    rows = [
        Prediction(f"line{number}", "0", 0, TRANSLATION, reference, hypothesis, context_source=UNKNOWN)
        for number, (hypothesis, reference) in enumerate(zip(lines, reference_lines, strict=True), start=1)
    ]
    return _make_system(file, rows)


def _read_system(file: Path, gold: Mapping[str, Prediction] | None, missing: MissingPolicy) -> System:
    """The system in `file`, with the references of `gold`, or those of the file."""
    _require_no_plain_text(file)
    unscored: tuple[str, ...] = ()
    if file.suffix.lower() in SEPARATORS:
        if gold is None:
            raise UserError(f"{file} has no references; name a file of references with --references.")
        rows = _read_csv_rows(file, gold)
    elif file.suffix.lower() == ".json":
        rows, unscored = _read_sign_llava_rows(file)
    elif (file / "predictions").is_dir():
        raise UserError(
            f"{file} is a run; name {file}/predictions/*, or add `--context-sources none,gold,predicted`."
        )
    else:
        file = find_predictions(file)
        rows = read_predictions(file)
        if gold is None:
            _require_complete(file, rows)
        rows = [row for row in rows if row.missing != NO_KEYWORD]
    if gold is not None:
        return _join_references(file, rows, gold, missing)
    absent = [row.id for row in rows if row.missing]
    scored_rows = [row for row in rows if not row.missing] if missing == "exclude" else rows
    return _make_system(file, scored_rows, missing=absent, unscored=unscored)


def _join_references(
    file: Path, rows: Sequence[Prediction], gold: Mapping[str, Prediction], missing: MissingPolicy
) -> System:
    """The clips of `gold`, each with the hypothesis in `rows`."""
    predictions = {row.id: row for row in rows}
    absent = [clip_id for clip_id in gold if clip_id not in predictions or predictions[clip_id].missing]
    if len(absent) == len(gold):
        if not predictions:
            raise UserError(f"{file} has no texts.")
        raise UserError(f"{file}: none of its clips is among the references ({summarize_names(predictions)}).")
    different = [
        clip_id
        for clip_id, row in predictions.items()
        if clip_id in gold and (row.task, row.question) != (gold[clip_id].task, gold[clip_id].question)
    ]
    if different:
        count = format_count(len(different), "clip")
        raise UserError(
            f"{file} and the references have different tasks or questions for {count} ({summarize_names(different)})."
        )
    scored_rows = []
    for clip_id, gold_row in gold.items():
        if missing == "empty" or clip_id not in absent:
            row = predictions.get(clip_id) or _make_external_prediction(gold_row, "", NO_HYPOTHESIS)
            scored_rows.append(replace(row, reference=gold_row.reference))
    extra = [clip_id for clip_id in predictions if clip_id not in gold]
    return _make_system(file, scored_rows, missing=absent, extra=extra)


def _make_system(
    file: Path,
    rows: list[Prediction],
    *,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
    unscored: Sequence[str] = (),
) -> System:
    """A system without a name."""
    if not rows:
        raise UserError(f"{file} has no predictions.")
    return System("", file, rows, missing=tuple(missing), extra=tuple(extra), unscored=tuple(unscored))


def _read_references(file: Path) -> dict[str, Prediction]:
    """Clip id -> a row with its reference."""
    _require_no_plain_text(file)
    if file.suffix.lower() in SEPARATORS:
        rows = [_make_row(uid, reference=text) for uid, text in _read_csv(file).items()]
    else:
        file = find_predictions(file)
        rows = read_predictions(file)
        if file.suffix.lower() != ".json":
            _require_complete(file, rows)
    return {row.id: row for row in rows if row.missing != NO_KEYWORD}


def _read_csv_rows(file: Path, gold: Mapping[str, Prediction]) -> list[Prediction]:
    """A row per text; its uid is `recording/clip`, or the name of a clip that only one recording has."""
    name_counts = Counter(row.clip for row in gold.values())
    clips_by_uid = {row.clip: row for row in gold.values() if name_counts[row.clip] == 1} | dict(gold)
    clips_by_uid |= {row.recording: row for row in gold.values() if not row.clip}
    rows: dict[str, Prediction] = {}
    for uid, text in _read_csv(file).items():
        row = _make_external_prediction(clips_by_uid.get(uid, _make_row(uid)), text)
        if row.id in rows:
            raise UserError(
                f"{file}: clip {escape_unprintable(row.id)} is there twice, the second time as "
                f"{escape_unprintable(uid)}; remove one."
            )
        rows[row.id] = row
    return list(rows.values())


def _read_sign_llava_rows(file: Path) -> tuple[list[Prediction], tuple[str, ...]]:
    """The rows of Sign_LLaVA's file, and the ids that it names without a text."""
    content = read_sign_llava_json(file)
    if content.is_gold:
        raise UserError(f"{file} has no hypotheses, only references; name it with --references.")
    return [replace(row, context_source=UNKNOWN) for row in content.rows], content.absent


def _make_external_prediction(clip: Prediction, hypothesis: str, missing: str | None = None) -> Prediction:
    """The row of another system for `clip`, with the fields of the clip but not those of the system that made it."""
    return Prediction(
        recording=clip.recording,
        clip=clip.clip,
        position=clip.position,
        task=clip.task,
        reference=clip.reference,
        hypothesis=hypothesis,
        context_source=UNKNOWN,
        missing=missing,
        context_bound=clip.context_bound,
        frames=clip.frames,
        question=clip.question,
    )


def _make_row(uid: str, reference: str = "") -> Prediction:
    """A row of this uid: the recording is the part before the last `/`, or all of a uid without one."""
    recording, _, clip = uid.rpartition("/") if "/" in uid else (uid, "", "")
    return Prediction(recording, clip, 0, TRANSLATION, reference, "")


def _read_csv(file: Path) -> dict[str, str]:
    """uid -> text."""
    texts: dict[str, str] = {}
    content = io.StringIO(read_text(file), newline="")
    try:
        reader = csv.DictReader(content, delimiter=SEPARATORS[file.suffix.lower()], strict=True)
        columns = reader.fieldnames or ()
        if not {"uid", "text"} <= set(columns):
            raise UserError(f"{file}: expected the columns uid and text, got {reader.fieldnames}.")
        if len(set(columns)) < len(columns):
            raise UserError(f"{file}: two columns have one name: {reader.fieldnames}.")
        for row in reader:
            if row["text"] is None or None in row:
                problem = "no text" if row["text"] is None else "more columns than names; quote texts with commas"
                raise UserError(f"{file}, line {reader.line_num}: {problem}.")
            if row["uid"] in texts:
                uid = escape_unprintable(row["uid"])
                raise UserError(f"{file}, line {reader.line_num}: clip {uid} is there twice; remove one.")
            texts[row["uid"]] = row["text"]
    except csv.Error as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    return texts


def _read_lines(file: Path) -> list[str]:
    text = read_text(file.expanduser()).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n") if text else []


def _require_no_plain_text(file: Path) -> None:
    if file.suffix.lower() in PLAIN_TEXT:
        raise UserError(f"{file}: plain text, a line per clip, is scored with --hyp FILE --ref FILE.")


def warn_about_decoding(systems: Sequence[System]) -> None:
    """Warn if the hypotheses of a system were decoded with other settings than those of the first, such as beams."""
    first, *others = [(system.name, _decoding_settings(system.file)) for system in systems]
    for name, settings in others:
        changed = [key for key in first[1] if key in settings and settings[key] != first[1][key]]
        if changed:
            changes = ", ".join(f"{key} {first[1][key]} and {settings[key]}" for key in changed)
            warning(
                f"{first[0]} and {name} were decoded with different settings ({changes}), which scores reflect too."
            )


def _decoding_settings(file: Path) -> dict[str, object]:
    """The settings of decoding in the meta file beside `file`; empty if there is none."""
    meta_file = file.parent / META_FILE
    decoding = read_json(meta_file).get("decoding") if meta_file.is_file() else None
    return (
        {key: decoding[key] for key in decoding if key not in VARIED_SETTINGS} if isinstance(decoding, dict) else {}
    )


def _require_complete(file: Path, rows: list[Prediction]) -> None:
    """Check that `rows` are all clips that the meta file says were to be translated."""
    meta_file = file.parent / META_FILE
    if not meta_file.is_file():
        warning(f"{file} has no {META_FILE} beside it: cannot check whether clips are missing.")
        return
    meta = read_json(meta_file)
    if not {"clips", "clips_hash", "split"} <= meta.keys():
        raise UserError(f"{meta_file} does not have clips, clips_hash and split; run `signllava generate` again.")
    if meta["clips_hash"] != hash_ids(row.id for row in rows):
        raise UserError(
            f"{file} has {len(rows)} of {meta['clips']} clips of split {meta['split']}, or other clips; "
            "run the same `signllava generate` again to finish it."
        )


def _assign_names(systems: Sequence[System], names: Sequence[str | None]) -> list[System]:
    """The systems with their names in tables: from `names`, numbered if runs share one, or from their paths."""
    for system in systems:
        _require_scorable(system)
    unnamed_files = [system.file for system, name in zip(systems, names, strict=True) if name is None]
    path_names = iter(_find_shortest_names(unnamed_files))
    num_runs, run_number = Counter(names), Counter[str]()
    named = []
    for system, name in zip(systems, names, strict=True):
        if name is None:
            named.append(replace(system, name=next(path_names)))
        elif num_runs[name] == 1:
            named.append(replace(system, name=name))
        else:
            run_number[name] += 1
            named.append(replace(system, name=f"{name} {run_number[name]}", seed_group=name))
    duplicates = [name for name, count in Counter(system.name for system in named).items() if count > 1]
    if duplicates:
        raise UserError(
            f"Several systems have the name {escape_unprintable(duplicates[0])}: give each a name, as NAME=FILE."
        )
    return named


def _require_scorable(system: System) -> None:
    for row in system.rows:
        length = max(len(row.reference), len(row.hypothesis))
        if length > MAX_TEXT_CHARACTERS:
            raise UserError(
                f"{system.file}: a text of clip {escape_unprintable(row.id)} has {length:,} characters; texts of "
                f"more than {MAX_TEXT_CHARACTERS:,} are not scored."
            )


def _find_shortest_names(files: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as make the names differ; of our predictions, of their folder's path."""
    parts = [(file.parent if file.name == PREDICTIONS_FILE else file).absolute().parts for file in files]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(path[-1:])} ({number})" for number, path in enumerate(parts, start=1)]
