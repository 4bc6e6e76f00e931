"""What is scored: the hypotheses of a system, from any of the files that people have, and which clips they are of."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from signllava_cli.console import warning
from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import read_json
from signllava_cli.generation.instructions import NO_KEYWORD
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import META_FILE, find_predictions, hash_ids, read_predictions
from signllava_cli.generation.sign_llava_json import NO_HYPOTHESIS, read_sign_llava_json

Missing = Literal["empty", "exclude"]
PLAIN_TEXT = (".txt", ".hyp", ".ref")
UNKNOWN = "unknown"  # the context of a system whose files do not say


@dataclass(frozen=True)
class System:
    """The clips of one system, each with reference and hypothesis, and how they compare with what was to be scored.

    `missing`: ids that the references have and the file has not, or without features; they are among `rows` with an
    empty hypothesis, unless they are excluded. `extra`: ids of the file that the references have not; they are not.
    `unscored`: ids that the file names without any text, so that there is nothing to score.
    `seed_of`: the name that it shares with other runs of one system, which differ in their seed.
    """

    name: str
    file: Path
    rows: list[Prediction]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    seed_of: str | None = None

    @property
    def ids_hash(self) -> str:
        """A hash of the clip ids that are scored."""
        return hash_ids(row.id for row in self.rows)

    @property
    def context_source(self) -> str:
        """Where the context of its hypotheses came from; of files that do not say, `unknown`."""
        return "+".join(sorted({row.context_source for row in self.rows if not row.missing})) or UNKNOWN

    @property
    def task(self) -> str:
        """The task of its clips.

        Raises:
            UserError: they are of several.
        """
        tasks = sorted({row.task for row in self.rows})
        if len(tasks) != 1:
            raise UserError(f"{self.file} holds several tasks ({', '.join(tasks)}); score them apart.")
        return tasks[0]


def read_systems(given: Sequence[str], references: Path | None, missing: Missing) -> list[System]:
    """The systems in files: predictions files or folders of ours, Sign_LLaVA's JSON, or `uid,text` CSV.

    Args:
        given: `FILE`, or `NAME=FILE` for a name of one's own; files of one name are runs of one system, with several
            seeds.
        references: a file of any of these kinds with the references; CSV files need one.
        missing: whether clips without a hypothesis count as empty or are left out.

    Raises:
        UserError: a file cannot be read, is unfinished, holds no clip that has a reference, or has another's name.
    """
    gold = None if references is None else _read_references(references.expanduser())
    names, files = zip(*map(split_name, given), strict=True)
    found = [_read(file, gold, missing) for file in files]
    return _assign_names(found, names)


def split_name(given: str) -> tuple[str | None, Path]:
    """`NAME=FILE` taken apart; a path that is there, or whose `=` stands behind a `/`, is a path."""
    name, equals, file = given.partition("=")
    if not equals or "/" in name or Path(given).expanduser().exists():
        return None, Path(given).expanduser()
    if not name.strip():
        raise UserError(f"{given}: expected NAME=FILE, or FILE.")
    return name.strip(), Path(file).expanduser()


def read_texts(given: Sequence[str], references: Path) -> list[System]:
    """The systems in plain text files, `FILE` or `NAME=FILE`, line by line; each line is a recording of its own.

    Raises:
        UserError: they cannot be read, or have another number of lines than the references.
    """
    names, files = zip(*map(split_name, given), strict=True)
    meant = _lines(references)
    return _assign_names([_text_system(file, references, meant) for file in files], names)


def _text_system(file: Path, references: Path, meant: Sequence[str]) -> System:
    said = _lines(file)
    if len(said) != len(meant):
        raise UserError(f"{file} has {len(said)} lines and {references} has {len(meant)}; they must be pairs.")
    rows = [
        Prediction(f"line{n}", "0", 0, "translation", ref, hyp, context_source=UNKNOWN)
        for n, (hyp, ref) in enumerate(zip(said, meant, strict=True), start=1)
    ]
    return System("", file, _required(rows, file))


def baseline_first(systems: Sequence[System], name: str | None) -> list[System]:
    """The systems, the one that the others are compared with first.

    Args:
        name: of that system. By default it is the one called `none`; else, where all files say what context their
            system saw, the first that saw none; else the first.

    Raises:
        UserError: no system has that name.
    """
    names = [system.name for system in systems]
    if name is not None and name not in names:
        raise UserError(f"--baseline {name}: no system has this name; there are {', '.join(names)}.")
    if name is None and "none" in names:
        name = "none"
    if name is None:
        contexts = [system.context_source for system in systems]
        name = names[contexts.index("none") if "none" in contexts and UNKNOWN not in contexts else 0]
    return sorted(systems, key=lambda system: system.name != name)


def require_same_clips(systems: Sequence[System], intersection: bool) -> list[System]:
    """The systems on the same clips: if asked for, those of which all of them have a hypothesis.

    Raises:
        UserError: they are of several tasks, hold different clips or references, or share none.
    """
    first = systems[0]
    if len(tasks := sorted({system.task for system in systems})) > 1:
        raise UserError(f"The files are of several tasks ({', '.join(tasks)}); score them apart.")
    common = set.intersection(*({row.id for row in system.rows} for system in systems))
    if intersection:
        common -= {id_ for system in systems for id_ in system.missing}
    for system in systems:
        if len(common) < len(system.rows) and not intersection:
            other = next(each for each in systems if each.ids_hash != system.ids_hash)
            raise UserError(
                f"{other.file} and {system.file} hold different clips ({len(other.rows)} and {len(system.rows)}), so "
                f"their scores cannot be compared; score them one by one, or the {len(common)} that all have with "
                "--intersection."
            )
    if not common:
        raise UserError("The files have no clip in common.")
    meant = {row.id: (row.reference, row.question) for row in first.rows}
    for system in systems[1:]:
        others = [
            row.id for row in system.rows if row.id in common and (row.reference, row.question) != meant[row.id]
        ]
        if others:
            raise UserError(
                f"{first.file} and {system.file} have different references or questions for {len(others)} clips "
                f"({summarize_names(others)}); they are of other data."
            )
    order = [row.id for row in first.rows if row.id in common]
    kept = []
    for system in systems:
        rows = {row.id: row for row in system.rows}
        kept.append(replace(system, rows=[rows[id_] for id_ in order]))
    return kept


def _read(file: Path, gold: Mapping[str, Prediction] | None, missing: Missing) -> System:
    _require_rows(file)
    unscored: tuple[str, ...] = ()
    if file.suffix == ".csv":
        if gold is None:
            raise UserError(f"{file} holds no references; name a file that does with --references.")
        rows = _rows_from_csv(file, gold)
    elif file.suffix == ".json":
        rows, unscored = _rows_from_sign_llava(file)
    elif (file / "predictions").is_dir():
        raise UserError(
            f"{file} is a run: name {file}/predictions/*, or let `--context-sources none,gold,predicted` do so."
        )
    else:
        file = find_predictions(file)
        rows = read_predictions(file)
        if gold is None:
            _require_complete(file, rows)
        rows = [row for row in rows if row.missing != NO_KEYWORD]
    if gold is None:
        absent = [row.id for row in rows if row.missing]
        kept = [row for row in rows if not row.missing] if missing == "exclude" else rows
        return System("", file, _required(kept, file), missing=tuple(absent), unscored=unscored)
    said = {row.id: row for row in rows}
    absent = [id_ for id_ in gold if id_ not in said or said[id_].missing]
    if len(absent) == len(gold):
        if not said:
            raise UserError(f"{file} holds no texts.")
        raise UserError(f"{file}: none of its clips is among the references ({summarize_names(said)}).")
    others = [id_ for id_, row in said.items() if id_ in gold and _asked(row) != _asked(gold[id_])]
    if others:
        raise UserError(
            f"{file} and the references have different tasks or questions for {len(others)} clips "
            f"({summarize_names(others)})."
        )
    kept = [
        replace(
            said[id_] if id_ in said else _external_prediction(meant, "", NO_HYPOTHESIS), reference=meant.reference
        )
        for id_, meant in gold.items()
        if missing == "empty" or id_ not in absent
    ]
    return System("", file, _required(kept, file), tuple(absent), tuple(id_ for id_ in said if id_ not in gold))


def _asked(row: Prediction) -> tuple[str, str | None]:
    return row.task, row.question


def _read_references(file: Path) -> dict[str, Prediction]:
    """Clip id -> a row with its reference."""
    _require_rows(file)
    if file.suffix == ".csv":
        rows = [_row(uid, reference=text) for uid, text in _csv(file).items()]
    else:
        file = find_predictions(file)
        rows = read_predictions(file)
        if file.suffix != ".json":
            _require_complete(file, rows)
    return {row.id: row for row in rows if row.missing != NO_KEYWORD}


def _rows_from_csv(file: Path, gold: Mapping[str, Prediction]) -> list[Prediction]:
    """A row for each text; its uid is `recording/clip`, or the name of a clip that only one recording has."""
    names = Counter(row.clip for row in gold.values())
    known = {row.clip: row for row in gold.values() if names[row.clip] == 1} | dict(gold)
    known |= {row.recording: row for row in gold.values() if not row.clip}
    rows: dict[str, Prediction] = {}
    for uid, text in _csv(file).items():
        row = _external_prediction(known.get(uid, _row(uid)), text)
        if row.id in rows:
            raise UserError(
                f"{file}: clip {escape_unprintable(row.id)} stands twice, as {escape_unprintable(uid)} the second time."
            )
        rows[row.id] = row
    return list(rows.values())


def _rows_from_sign_llava(file: Path) -> tuple[list[Prediction], tuple[str, ...]]:
    """The rows of Sign_LLaVA's file, and ids that it names alone."""
    found = read_sign_llava_json(file)
    if found.is_gold:
        raise UserError(f"{file} holds no hypotheses, only references: name it with --references.")
    return [replace(row, context_source=UNKNOWN) for row in found.rows], found.absent


def _external_prediction(clip: Prediction, hypothesis: str, missing: str | None = None) -> Prediction:
    """The row of another system: what the clip is, without what the system that it comes from did with it."""
    return Prediction(
        clip.recording,
        clip.clip,
        clip.position,
        clip.task,
        clip.reference,
        hypothesis,
        context_source=UNKNOWN,
        missing=missing,
        context_bound=clip.context_bound,
        frames=clip.frames,
        question=clip.question,
    )


def _row(uid: str, reference: str = "") -> Prediction:
    """A row of that uid; what stands before its last `/` is the recording. Without one, it is a recording itself."""
    recording, _, clip = uid.rpartition("/") if "/" in uid else (uid, "", "")
    return Prediction(recording, clip, 0, "translation", reference, "")


def _csv(file: Path) -> dict[str, str]:
    """uid -> text."""
    found: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            if not {"uid", "text"} <= set(reader.fieldnames or ()):
                raise UserError(f"{file}: expected the columns uid and text, got {reader.fieldnames}.")
            if len(set(reader.fieldnames or ())) < len(reader.fieldnames or ()):
                raise UserError(f"{file}: a column stands twice: {reader.fieldnames}.")
            for row in reader:
                if row["text"] is None or None in row:
                    wrong = "no text" if row["text"] is None else "more columns than names; quote texts with commas"
                    raise UserError(f"{file}, line {reader.line_num}: {wrong}.")
                if row["uid"] in found:
                    raise UserError(
                        f"{file}, line {reader.line_num}: clip {escape_unprintable(row['uid'])} stands twice."
                    )
                found[row["uid"]] = row["text"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return found


def _lines(file: Path) -> list[str]:
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return text.removesuffix("\n").split("\n") if text else []


def _require_rows(file: Path) -> None:
    if file.suffix in PLAIN_TEXT:
        raise UserError(f"{file}: plain text, a line a clip, is scored with --hyp FILE --ref FILE.")


def _required(rows: list[Prediction], file: Path) -> list[Prediction]:
    if not rows:
        raise UserError(f"{file} holds no predictions.")
    return rows


def _require_complete(file: Path, rows: list[Prediction]) -> None:
    """Check the rows against what the meta file says was to be translated."""
    meta_file = file.parent / META_FILE
    if not meta_file.is_file():
        warning(f"{file} has no {META_FILE} beside it: whether clips are missing cannot be told.")
        return
    meta = read_json(meta_file)
    if not {"clips", "clips_hash", "split"} <= meta.keys():
        raise UserError(f"{meta_file} does not say which clips were to be translated; generate again.")
    if meta["clips_hash"] != hash_ids(row.id for row in rows):
        raise UserError(
            f"{file} holds {len(rows)} of {meta['clips']} clips of split {meta['split']}, or others; "
            "run the same `signllava generate` again to finish it."
        )


def _assign_names(systems: Sequence[System], names: Sequence[str | None]) -> list[System]:
    """The systems with their names in tables: those given, numbered among several runs, or what tells files apart."""
    paths = iter(
        _distinguish_names([system.file for system, name in zip(systems, names, strict=True) if name is None])
    )
    runs, seen = Counter(names), Counter[str]()
    found = []
    for system, name in zip(systems, names, strict=True):
        if name is None:
            found.append(replace(system, name=next(paths)))
        elif runs[name] == 1:
            found.append(replace(system, name=name))
        else:
            seen[name] += 1
            found.append(replace(system, name=f"{name} {seen[name]}", seed_of=name))
    twice = [label for label, count in Counter(system.name for system in found).items() if count > 1]
    if twice:
        raise UserError(f"Several systems are called {escape_unprintable(twice[0])}: give each a name, as NAME=FILE.")
    return found


def _distinguish_names(files: Sequence[Path]) -> list[str]:
    """A predictions folder's own name, or as much of the path as tells the files apart."""
    parts = [(file.parent if file.name == "predictions.jsonl" else file).absolute().parts for file in files]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(each[-1:])} ({number})" for number, each in enumerate(parts, start=1)]
