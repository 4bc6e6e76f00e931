"""A study: several recipes with several seeds, each trained and decoded under all context sources, in one table.

Each step is a command that a user could type; a step that is done is skipped, so a study continues where it stopped.
"""

import dataclasses
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.work_shard import parse_shard
from signllava_cli.errors import UserError, format_count
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.files import exclusive_access, read_json, write_json
from signllava_cli.generation.context_source import PREPARED, require_source_name
from signllava_cli.generation.predictions_folder import META_FILE, PREDICTIONS_FILE, find_predictions
from signllava_cli.launch import find_profile, read_profile
from signllava_cli.model.checkpoint import find_checkpoint
from signllava_cli.processes import repeat_option, run_signllava
from signllava_cli.recipe import Recipe, Stage, find_recipe_files, format_override, read_recipe

STATE_FILE = "study.json"  # in the folder of a run: which of its steps are done
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
TRAIN, GENERATE = "train", "generate"  # the steps of a run
OWN_KEYS = ("run.output_dir", "run.seed", "init.projector")  # the study sets these keys of every run


@dataclass(frozen=True)
class StudyConfig:
    """What is compared.

    `recipes`: `RECIPE` or `NAME=RECIPE`, with variants or without. `out`: the folder of all runs and results.
    `seeds`: of each recipe; empty for the seed in the recipe. `sources`: context sources as `generate` takes them.
    `split`: that is translated; `None` for the recipe's. `baseline`, `preset`: the system that the others are
    compared with, and the tokenization, as `signllava eval` takes them. `overrides`: `KEY=VALUE`, for all recipes.
    """

    recipes: Sequence[str]
    out: Path
    seeds: Sequence[int] = ()
    sources: Sequence[str] = ("none", "gold", "predicted")
    split: str | None = None
    baseline: str | None = None
    preset: str | None = None
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class StudyRun:
    """One recipe with one seed.

    `source`: the recipe as it was named. `parent`: the run whose projectors it starts from, if that belongs to the
    study. `generate_overrides`: `KEY=VALUE` for its translation.
    """

    name: str
    seed: int
    source: str
    recipe: Recipe
    folder: Path
    parent: "StudyRun | None"
    generate_overrides: tuple[str, ...]

    @property
    def stage(self) -> Stage:
        return "finetune" if self.recipe.lora.enabled else "pretrain"

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def root(self) -> "StudyRun":
        """The first of the runs that have to be trained one after the other for this one."""
        return self if self.parent is None else self.parent.root


class Study:
    """The runs of a study, in the order in which they can be trained.

    Raises:
        UserError: a recipe cannot be read, two recipes have one name, the recipes translate different clips, a
            context source is unknown or two are of one kind, the baseline or the preset is unknown, or an override
            sets a key that the study sets.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        _require_sources(config.sources)
        if config.preset is not None:
            find_preset(config.preset)
        sources = dict(_parse_names(config.recipes))
        recipes = {name: read_recipe(source, config.overrides) for name, source in sources.items()}
        _require_free_keys(config.overrides)
        _require_same_clips(recipes, config.split)
        outputs = {_normalize(recipe.run.output_dir): name for name, recipe in recipes.items()}
        if len(outputs) < len(recipes):
            raise UserError("Two recipes have the same run.output_dir; a study needs one for each recipe.")
        parents = {
            name: outputs.get(_normalize(recipe.init.projector)) if recipe.init.projector else None
            for name, recipe in recipes.items()
        }
        self.runs: list[StudyRun] = []
        for name in _in_training_order(parents):
            for seed in config.seeds or (recipes[name].run.seed,):
                parent = next((run for run in self.runs if run.name == parents[name] and run.seed == seed), None)
                if parents[name] is not None and parent is None:
                    raise UserError(f"{name} starts from {parents[name]}, which has another seed: set --seeds.")
                self.runs.append(self._make_run(name, seed, sources[name], parent))
        _require_baseline(config, list(recipes))

    def _make_run(self, name: str, seed: int, source: str, parent: StudyRun | None) -> StudyRun:
        folder = self.config.out / name / f"seed-{seed}"
        recipe = read_recipe(source, self._overrides(folder, seed, parent))
        return StudyRun(name, seed, source, recipe, folder, parent, _generate_overrides(recipe))

    def _overrides(self, folder: Path, seed: int, parent: StudyRun | None) -> list[str]:
        own = [format_override("run.output_dir", folder), format_override("run.seed", seed)]
        if parent is not None:
            own.append(format_override("init.projector", parent.folder))
        return [*self.config.overrides, *own]

    def train_command(self, run: StudyRun) -> list[str]:
        """The arguments of `signllava` that train a run."""
        overrides = self._overrides(run.folder, run.seed, run.parent)
        return [run.stage, "--recipe", run.source, *repeat_option("--set", overrides)]

    def generate_command(self, run: StudyRun) -> list[str]:
        """The arguments of `signllava` that translate with a trained run, under all context sources."""
        split = [] if self.config.split is None else ["--split", self.config.split]
        sources = repeat_option("--context-source", self.config.sources)
        return [
            "generate",
            "--checkpoint",
            str(run.folder),
            "--keep-others",
            *split,
            *sources,
            *repeat_option("--set", [*self.config.overrides, *run.generate_overrides]),
        ]

    def eval_command(self) -> list[str]:
        """The arguments of `signllava` that score all runs; the seeds of a system are one group."""
        files: dict[str, list[str]] = {}
        for source in self.config.sources:
            for run in self.runs:
                if file := read_state(run)["predictions"].get(_source_kind(source)):
                    files.setdefault(f"{run.name} {_source_kind(source)}", []).append(file)
        systems = [f"{system}={file}" for system, group in files.items() for file in group]
        given = {"--baseline": self.config.baseline, "--preset": self.config.preset}
        options = [word for option, value in given.items() if value is not None for word in (option, value)]
        out = self.config.out
        outputs = ["--out", out / "scores.json", "--latex", out / "table.tex", "--report", out / "report.html"]
        return ["eval", *systems, *options, *map(str, outputs)]

    def fingerprint(self, run: StudyRun, command: str) -> str:
        """What the result of `command` (`train` or `generate`) of a run depends on."""
        ignored = ("launch.", "generate.") if command == TRAIN else ("launch.",)
        recipe = {key: value for key, value in run.recipe.to_flat_dict().items() if not key.startswith(ignored)}
        decoding = [] if command == TRAIN else [self.config.split, *self.config.sources]
        parent = run.parent and read_state(run.parent)["id"]
        return hashlib.sha256(json.dumps([recipe, decoding, parent], default=str).encode()).hexdigest()[:16]

    def is_done(self, run: StudyRun, command: str) -> bool:
        """Whether `command` (`train` or `generate`) of a run has ended with success, with its present settings."""
        return bool(read_state(run)["done"].get(command) == self.fingerprint(run, command))


def run_study(config: StudyConfig, shard: str | None = None) -> None:
    """Run the steps that are not done, then score all runs.

    A run that fails does not stop the runs that do not start from it.

    Args:
        shard: "i/n", i counted from 1: this is job i of n; the job that finds all runs complete scores them.

    Raises:
        UserError: runs failed; each has printed its own message before.
        RunStopped: a signal arrived; the running command has saved its state.
    """
    study = Study(config)
    failed: set[str] = set()
    for run in _select_shard(study.runs, shard):
        if run.parent is not None and run.parent.label in failed:
            failed.add(run.label)
            continue
        try:
            _train_and_generate(study, run)
        except UserError as error:
            first, *details = error.lines
            warning(f"{run.label}: {first}", *details)
            failed.add(run.label)
    if failed:
        raise UserError(
            f"{format_count(len(failed), 'run')} of the study failed ({'; '.join(sorted(failed))}), see above; run "
            "the same command again after the fix: what is done is kept."
        )
    remaining = [run.label for run in study.runs if not study.is_done(run, GENERATE)]
    if remaining:
        info(f"{len(study.runs) - len(remaining)} of {len(study.runs)} runs are complete; other jobs do the others.")
        return
    with exclusive_access(config.out):
        run_signllava(study.eval_command())
    info(f"scores, table and report of the study are in {config.out}")


def print_plan(study: Study, shard: str | None = None) -> None:
    """Print the runs, of job `shard` as in `run_study`, and which of their steps are done."""
    rows = []
    for run in _select_shard(study.runs, shard):
        steps = ["done" if study.is_done(run, command) else "to do" for command in (TRAIN, GENERATE)]
        rows.append([run.name, run.seed, run.parent.name if run.parent else "-", *steps, run.folder])
    print_table("Study", ["recipe", "seed", "starts from", TRAIN, GENERATE, "folder"], rows)
    done = [sum(row[column] == "done" for row in rows) for column in (3, 4)]
    info(f"{format_count(len(rows), 'run')}: {done[0]} trained, {done[1]} translated")


def read_state(run: StudyRun) -> dict[str, Any]:
    """What is done of a run.

    `done`: `train`, `generate` -> fingerprint of the finished step. `predictions`: context source -> file. `id`: of
    this training, which a training from the start changes.
    """
    file = run.folder / STATE_FILE
    return read_json(file) if file.is_file() else {"done": {}, "predictions": {}, "id": None}


def _train_and_generate(study: Study, run: StudyRun) -> None:
    if not study.is_done(run, TRAIN):
        run_signllava(study.train_command(run))
        _write_state(run, {TRAIN: study.fingerprint(run, TRAIN)}, {})
    if not study.is_done(run, GENERATE):
        run_signllava(study.generate_command(run))
        done = {command: study.fingerprint(run, command) for command in (TRAIN, GENERATE)}
        _write_state(run, done, _find_predictions(run, study.config))


def _write_state(run: StudyRun, done: dict[str, str], predictions: dict[str, str]) -> None:
    training_id = read_state(run)["id"] or uuid.uuid4().hex
    write_json(run.folder / STATE_FILE, {"done": done, "predictions": predictions, "id": training_id})


def _find_predictions(run: StudyRun, config: StudyConfig) -> dict[str, str]:
    """Context source -> predictions file of the best checkpoint of a run, in the order of the sources.

    The run may have predictions of other commands too, such as those of an ablation. Of several that have the
    settings of the study, those that `generate` wrote or checked last are of the present weights and data.
    """
    checkpoint, split = find_checkpoint(run.folder), config.split or run.recipe.generate.split
    settings = json.loads(json.dumps(dataclasses.asdict(run.recipe.generate)))
    context = run.recipe.context.window, run.recipe.context.prelude
    found = {}
    folders = (run.folder / "predictions").glob(f"{checkpoint.name}.{split}.*")
    complete = [folder for folder in folders if (folder / PREDICTIONS_FILE).is_file()]
    for folder in sorted(complete, key=lambda folder: (folder / META_FILE).stat().st_mtime_ns):
        meta = read_json(folder / META_FILE)
        kind, decoding = meta["decoding"]["context_source"], meta["decoding"]
        has_settings = all(decoding[key] == settings[key] for key in decoding.keys() - {"context_source"})
        has_context = kind == "none" or (meta["window"], meta["prelude"]) == context
        if has_settings and has_context:
            found[kind] = str(folder / PREDICTIONS_FILE)
    return {kind: found[kind] for kind in map(_source_kind, config.sources) if kind in found}


def _generate_overrides(recipe: Recipe) -> tuple[str, ...]:
    """The launch profile for `generate`, which does not run under DeepSpeed, if `recipe` is trained with it."""
    if recipe.launch.profile is None:
        return ()
    profile = read_profile(find_profile(recipe.launch.profile))
    if profile.distributed_type != "DEEPSPEED":
        return ()
    return (f"launch.profile={'multi_cpu' if profile.use_cpu else 'multi_gpu'}",)


def _source_kind(source: str) -> str:
    """`prepared` of `prepared:FILE`."""
    return source.partition(":")[0]


def _require_sources(sources: Sequence[str]) -> None:
    kinds = [_source_kind(source) for source in sources]
    if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise UserError(f"--context-sources: {', '.join(repeated)} is named twice; a study has one source of a kind.")
    for source in sources:
        require_source_name(source, "--context-sources")
        if source.startswith(PREPARED):
            file = find_predictions(Path(source.removeprefix(PREPARED)).expanduser())
            if not file.is_file():
                raise UserError(f"--context-sources {source}: {file} is missing.")


def _require_baseline(config: StudyConfig, names: Iterable[str]) -> None:
    """Check that the baseline is a system of the study: of a run, or of all seeds of a recipe."""
    systems = [f"{name} {_source_kind(source)}" for source in config.sources for name in names]
    if len(config.seeds) > 1:
        numbers = range(1, len(config.seeds) + 1)
        systems += [f"{system} {number}" for system in systems for number in numbers]
    if config.baseline is not None and config.baseline not in systems:
        raise UserError(
            f"--baseline {config.baseline}: no system has this name; expected one of {', '.join(systems)}."
        )


def _parse_names(arguments: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The name and the recipe of each `NAME=RECIPE` or `RECIPE`, whose name is that of its file and its variants.

    Raises:
        UserError: there is no such recipe, or two have one name.
    """
    names: set[str] = set()
    for argument in arguments:
        name, equals, recipe = ("", "", argument) if Path(argument).is_file() else argument.partition("=")
        recipe = recipe if equals else argument
        name = name.strip() if equals else "+".join(file.stem for file in find_recipe_files(recipe))
        if not NAME.fullmatch(name):
            raise UserError(f"{argument}: a name has letters, digits, `.`, `_`, `+` and `-`; write NAME={recipe}.")
        if name in names:
            raise UserError(f"Two recipes are called {name}: give each a name, as in NAME={recipe}.")
        names.add(name)
        yield name, recipe


def _require_free_keys(overrides: Iterable[str]) -> None:
    for override in overrides:
        if override.partition("=")[0].strip() in OWN_KEYS:
            raise UserError(f"--set {override}: a study sets {', '.join(OWN_KEYS)} itself; use --out and --seeds.")


def _require_same_clips(recipes: Mapping[str, Recipe], split: str | None) -> None:
    """Check before days of training that the scores of all recipes can be compared.

    Raises:
        UserError: the annotation files of the translated split have different clips or sentences.
    """
    texts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for recipe in recipes.values():
        key = (recipe.data.root, split or recipe.generate.split)
        if key not in texts:
            recordings = read_annotations(Path(key[0]).expanduser(), key[1])
            texts[key] = [(clip.id, clip.translation) for recording in recordings for clip in recording.clips]
    (first, expected), *others = texts.items()
    for other, clips in others:
        if sorted(clips) != sorted(expected):
            raise UserError(
                f"The recipes translate different clips: split {first[1]} of {first[0]} has {len(expected)}, split "
                f"{other[1]} of {other[0]} has {len(clips)}, or their sentences differ; make a study of each."
            )


def _in_training_order(parents: Mapping[str, str | None]) -> list[str]:
    """The names, each after its parent.

    Raises:
        UserError: recipes start from each other.
    """
    ordered: list[str] = []
    while len(ordered) < len(parents):
        ready = [name for name, parent in parents.items() if name not in ordered and parent in (None, *ordered)]
        if not ready:
            raise UserError(
                f"{', '.join(sorted(parents.keys() - {*ordered}))} start from each other (init.projector)."
            )
        ordered += ready
    return ordered


def _select_shard(runs: Sequence[StudyRun], shard: str | None) -> list[StudyRun]:
    """The runs of job "i/n": runs that start from one another belong to one job."""
    if shard is None:
        return list(runs)
    job, num_jobs = parse_shard(shard)
    roots = list(dict.fromkeys(run.root.label for run in runs))
    return [run for run in runs if roots.index(run.root.label) % num_jobs == job - 1]


def _normalize(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
