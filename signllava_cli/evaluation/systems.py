"""Systems to be scored: their hypotheses with references, the baseline, and whether they have the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from signllava_cli.data.annotations import ContextBound
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import hash_ids
from signllava_cli.recipe import Task

TRANSLATION: Task = "translation"  # the other tasks are yes/no questions
UNKNOWN = "unknown"  # the context source of a system whose files do not have it


@dataclass(frozen=True)
class System:
    """The clips of one system, each with reference and hypothesis.

    `missing`: ids of the references without a hypothesis in the file; they are among `rows` with an empty hypothesis,
    unless they are excluded. `extra`: ids of the file without a reference; they are not among `rows`. `unscored`: ids
    that the file names without any text. `seed_group`: the name that several runs of one system share, which differ
    in their seed.
    """

    name: str
    file: Path
    rows: list[Prediction]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    seed_group: str | None = None

    @property
    def ids_hash(self) -> str:
        """A hash of the clip ids that are scored."""
        return hash_ids(row.id for row in self.rows)

    @property
    def context_source(self) -> str:
        """Where the context of its hypotheses came from; `unknown` if its files do not have it."""
        return "+".join(sorted({row.context_source for row in self.rows if not row.missing})) or UNKNOWN

    @property
    def task(self) -> str:
        """The task of its clips.

        Raises:
            UserError: the clips are of several tasks.
        """
        tasks = sorted({row.task for row in self.rows})
        if len(tasks) != 1:
            raise UserError(
                f"{self.file} has clips of several tasks ({', '.join(tasks)}); score each task separately."
            )
        return tasks[0]


def collect_context_bound_marks(systems: Sequence[System]) -> list[ContextBound | None]:
    """The mark of each clip, from the first system whose file has marks; only of translations."""
    by_system = [[row.context_bound for row in system.rows] for system in systems]
    unmarked: list[ContextBound | None] = [None] * len(by_system[0])
    return (
        next((marks for marks in by_system if any(marks)), unmarked) if systems[0].task == TRANSLATION else unmarked
    )


def move_baseline_first(systems: Sequence[System], name: str | None) -> list[System]:
    """The systems, with the baseline first, and after it the other runs of its group of seeds.

    Args:
        name: of the baseline, or of its group of several seeds. By default the system called `none`; else, if all
            files have the context source, the first system without context; else the first system.

    Raises:
        UserError: no system has that name.
    """
    names = [system.name for system in systems]
    groups = [system.seed_group or system.name for system in systems]
    if name is not None and name not in (*names, *groups):
        expected = ", ".join(dict.fromkeys((*groups, *names)))
        raise UserError(f"--baseline {name}: no system has this name; expected one of {expected}.")
    if name is None and "none" in groups:
        name = "none"
    if name is None:
        sources = [system.context_source for system in systems]
        name = names[sources.index("none") if "none" in sources and UNKNOWN not in sources else 0]
    first = names.index(name) if name in names else groups.index(name)
    order = sorted(range(len(systems)), key=lambda index: (index != first, groups[index] != groups[first]))
    return [systems[index] for index in order]


def require_same_clips(systems: Sequence[System], intersection: bool) -> list[System]:
    """The systems with the same clips in the same order; with `intersection`, those of which all have a hypothesis.

    Raises:
        UserError: the systems have several tasks, different clips or references, or no common clips.
    """
    first = systems[0]
    if len(tasks := sorted({system.task for system in systems})) > 1:
        raise UserError(f"The files have several tasks ({', '.join(tasks)}); score each task separately.")
    common = set.intersection(*({row.id for row in system.rows} for system in systems))
    if intersection:
        common -= {clip_id for system in systems for clip_id in system.missing}
    for system in systems:
        if len(common) < len(system.rows) and not intersection:
            other = next(other for other in systems if other.ids_hash != system.ids_hash)
            if not common:
                raise UserError(
                    f"{other.file} and {system.file} have no clip in common, as if of different splits; score the "
                    "files of each split separately."
                )
            raise UserError(
                f"{other.file} and {system.file} have different clips ({len(other.rows)} and {len(system.rows)}), so "
                f"their scores cannot be compared; score each file separately, or the {len(common)} common clips "
                "with --intersection."
            )
    if not common:
        raise UserError("The files have no common clips.")
    expected = {row.id: (row.reference, row.question) for row in first.rows}
    for system in systems[1:]:
        different = [
            row.id for row in system.rows if row.id in common and (row.reference, row.question) != expected[row.id]
        ]
        if different:
            count = format_count(len(different), "clip")
            raise UserError(
                f"{first.file} and {system.file} have different references or questions for {count} "
                f"({summarize_names(different)}): score each file separately."
            )
    order = [row.id for row in first.rows if row.id in common]
    aligned = []
    for system in systems:
        rows = {row.id: row for row in system.rows}
        aligned.append(replace(system, rows=[rows[clip_id] for clip_id in order]))
    return aligned
