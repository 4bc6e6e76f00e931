"""The folder of a run: checkpoints, the links `best` and `last`, recipe, metrics and log.

Only the main process writes. A checkpoint is written as `step-*.tmp` and then renamed, so a `step-*` folder is
complete unless the disk damaged it. It is written in the background, while training goes on.
"""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from signllava_cli.console import IS_MAIN_PROCESS, info, warning
from signllava_cli.errors import UserError, format_count
from signllava_cli.files import (
    REMOVED_SUFFIX,
    TEMPORARY_SUFFIX,
    append_text,
    atomic_folder,
    link_target,
    lock_folder,
    read_link,
    remove_folder,
    require_own_file,
    write_link,
    write_text,
)
from signllava_cli.model.checkpoint import (
    PROGRESS,
    RECIPE,
    STEP_FOLDER,
    CheckpointConfig,
    find_damage,
    find_tensor_damage,
)
from signllava_cli.model.lora import has_adapted_parameters
from signllava_cli.recipe import Recipe, read_recipe
from signllava_cli.training.background import BackgroundTask
from signllava_cli.training.metrics_log import METRICS
from signllava_cli.training.snapshot import OPTIMIZER_FILE, RESUME_FOLDER, Snapshot, write_snapshot
from signllava_cli.training.trackers import Trackers
from signllava_cli.training.train_state import TrainState

LOG = "log.txt"
NUM_RESUMABLE = 2  # the newest checkpoints keep their optimizer state: one to resume, one if that is damaged

# Keys that may change when a run is resumed: paths and reporting, but nothing that changes what it computes.
SAFE_TO_CHANGE = (
    "run.output_dir",
    "llm.path",
    "data.root",
    "data.num_workers",
    "init.",
    "generate.",
    "track.",
    "launch.",
    "train.eval_steps",
    "train.save_steps",
    "train.save_total_limit",
    "train.stop_at_step",
    "train.max_hours",
    "train.micro_batch_size",
    "train.preflight",
    "train.deterministic",
    "train.skip_nonfinite",
    "train.early_stopping_patience",
)


class RunFolder:
    """The run folder at `path`; created, and locked until this process ends, on the main process."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.metrics, self.log = self.path / METRICS, self.path / LOG
        self._trackers: Trackers | None = None
        self._save = BackgroundTask()
        if IS_MAIN_PROCESS:
            self._lock = lock_folder(self.path)
            for file in (self.metrics, self.log):
                require_own_file(file)

    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first.

        A network file system can list a folder as it was some seconds ago, so the links are followed too.
        """
        if not self.path.is_dir():
            return []
        linked = {link_target(self.path / link) or link for link in ("best", "last")}
        names = {path.name for path in self.path.iterdir()} | {name for name in linked if (self.path / name).is_dir()}
        steps = {int(match[1]): name for name in names if (match := STEP_FOLDER.fullmatch(name))}
        return [self.path / steps[step] for step in sorted(steps)]

    def checkpoint_to_resume(self, resume: str) -> Path | None:
        """The checkpoint of `--resume`: the newest complete one (`auto`), none (`never`), or a folder.

        Raises:
            UserError: the folder is not a complete checkpoint; `never` although there are checkpoints; `auto`
                although every checkpoint is damaged.
        """
        if resume == "never":
            if self.checkpoints():
                raise UserError(
                    f"{self.path} already holds checkpoints and --resume is never; set another run.output_dir, "
                    "or move this folder away."
                )
            return None
        if resume != "auto":
            chosen = read_link(Path(resume).expanduser()) or Path(resume)
            error = find_damage(chosen) or _find_resume_damage(chosen)
            if error:
                raise UserError(f"--resume {resume}: not a complete checkpoint ({error}); choose another.")
            if chosen.resolve().parent != self.path.resolve():
                raise UserError(
                    f"--resume {resume} is a checkpoint of another run than {self.path}; to start from its weights, "
                    "set init.projector."
                )
            return chosen
        for incomplete in sorted(self.path.glob(f"step-*{TEMPORARY_SUFFIX}")):
            warning(f"{incomplete} is an incomplete checkpoint of a killed run; removed.")
            if IS_MAIN_PROCESS:
                shutil.rmtree(incomplete, ignore_errors=True)
        for remainder in self.path.glob(f".step-*{REMOVED_SUFFIX}"):
            if IS_MAIN_PROCESS:
                shutil.rmtree(remainder, ignore_errors=True)
        checkpoints = self.checkpoints()
        self._warn_about_missing_target(checkpoints)
        for checkpoint in reversed(checkpoints):
            error = find_damage(checkpoint) or _find_resume_damage(checkpoint)
            if error is None:
                return checkpoint
            warning(f"{checkpoint} cannot be resumed: {error}")
        if checkpoints:
            raise UserError(
                f"No checkpoint in {self.path} can be resumed; set another run.output_dir to start a new run."
            )
        return None

    def _warn_about_missing_target(self, checkpoints: list[Path]) -> None:
        """Warn when `last` names a checkpoint that is not there: it was removed, or the file system is behind."""
        name = link_target(self.path / "last")
        if name and STEP_FOLDER.fullmatch(name) and name not in [checkpoint.name for checkpoint in checkpoints]:
            start = f"resuming from {checkpoints[-1].name}" if checkpoints else "starting at step 0"
            warning(
                f"{self.path / 'last'} names {name}, which is missing; {start}. If {name} was not removed, stop this "
                "run, and start it again when the file system shows the folder."
            )

    def require_same_recipe(self, checkpoint: Path, recipe: Recipe) -> list[str]:
        """Check that the recipe of a resumed run differs from that of its checkpoint only in keys that are safe.

        Returns:
            The safe changes, as `key: old -> new`.

        Raises:
            UserError: unsafe keys differ; the message lists them.
        """
        old, new = read_recipe(checkpoint / RECIPE).to_flat_dict(), recipe.to_flat_dict()
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        unsafe = [key for key in changed if not _is_safe(key, old.get(key), new.get(key))]
        if unsafe:
            changes = "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in unsafe)
            raise UserError(
                f"{checkpoint} was written with another recipe ({changes}); undo the change, or set another "
                "run.output_dir to start a new run."
            )
        return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed]

    def save(self, snapshot: Snapshot, state: TrainState, config: CheckpointConfig, recipe: Recipe) -> None:
        """Write a checkpoint in the background, link `last` to it, and remove old checkpoints.

        Waits for the save before, and for this one if the adapter covers parameters (see `has_adapted_parameters`).
        `snapshot` must not change later; of `state` a copy is written.
        """
        self._save.start(partial(self._write, snapshot, replace(state), config, recipe))
        if recipe.lora.enabled and has_adapted_parameters(snapshot.model.llm):
            self._save.wait()

    def check_save(self, is_end_awaited: bool = False) -> None:
        """Raise the error of the last save, if it has failed already.

        Args:
            is_end_awaited: wait for the end of the save before.
        """
        if is_end_awaited:
            self._save.wait()
        else:
            self._save.raise_error()

    def _write(self, snapshot: Snapshot, state: TrainState, config: CheckpointConfig, recipe: Recipe) -> None:
        checkpoint = self.path / f"step-{state.step:06d}"
        with atomic_folder(checkpoint) as folder:
            write_snapshot(folder, snapshot, state, config, recipe)
        write_link(self.path / "last", checkpoint.name)
        self._prune(recipe.train.save_total_limit)

    def update_best_link(self, state: TrainState) -> None:
        """Link `best` to the checkpoint of the best step, and write `state` into the checkpoint of its step.

        Waits for the save of this checkpoint.
        """
        self._save.wait()
        if state.best_step is not None:
            write_link(self.path / "best", f"step-{state.best_step:06d}")
        state.write(self.path / f"step-{state.step:06d}" / PROGRESS)

    def start(self, recipe: Recipe, state: TrainState) -> None:
        """Write the resolved recipe, start the trackers, and remove metrics of steps after the resumed checkpoint.

        A run that was killed right after it had written its newest checkpoint has not linked `last` to it, and has
        not removed old ones.
        """
        if not IS_MAIN_PROCESS:
            return
        newest = f"step-{state.step:06d}"
        if [path.name for path in self.checkpoints()[-1:]] == [newest]:
            write_link(self.path / "last", newest)
            self._prune(recipe.train.save_total_limit)
        write_text(self.path / RECIPE, recipe.to_yaml())
        info(f"the whole recipe is in {self.path / RECIPE}")
        self._trackers = Trackers(recipe, self.path, state.step)
        if self.metrics.is_file():
            text = self.metrics.read_text(encoding="utf-8", errors="replace")
            write_text(self.metrics, _metrics_before(text, state))

    def log_metrics(self, **metrics: Any) -> None:
        """Append one line to metrics.jsonl, and send its numbers to the trackers.

        Raises:
            UserError: the disk is full or not writable.
        """
        if IS_MAIN_PROCESS:
            append_text(self.metrics, json.dumps(metrics) + "\n")
            if self._trackers is not None:
                self._trackers.log(**metrics)

    def close(self) -> None:
        """Wait for the last save, end the trackers, and remove the folder if it holds nothing but the lock file."""
        try:
            self._save.wait()
        except UserError as failure:  # of a run that another error ends: otherwise `check_save` has raised it
            warning(str(failure))
        if self._trackers is not None:
            self._trackers.end()
        if IS_MAIN_PROCESS and [path.name for path in self.path.iterdir()] == [Path(self._lock.name).name]:
            shutil.rmtree(self.path)

    def _prune(self, save_total_limit: int) -> None:
        """Remove old checkpoints, but never those of `best` and `last`, and old optimizer states."""
        checkpoints = self.checkpoints()
        for checkpoint in checkpoints[:-NUM_RESUMABLE]:
            shutil.rmtree(checkpoint / RESUME_FOLDER, ignore_errors=True)
        targets = [read_link(self.path / link) for link in ("best", "last")]
        linked = {target.name for target in targets if target is not None}
        for checkpoint in checkpoints[:-save_total_limit]:
            if checkpoint.name not in linked:
                remove_folder(checkpoint)


def _is_safe(key: str, old: Any, new: Any) -> bool:
    if key == "train.max_tokens_per_batch":  # its value only divides a step, but null changes which clips a step has
        return old is not None and new is not None
    if key.startswith("streams.") and key.endswith(".layout"):  # compared with the layout of the checkpoint
        return True
    return key.startswith(SAFE_TO_CHANGE)


def _find_resume_damage(checkpoint: Path) -> str | None:
    if not (checkpoint / RESUME_FOLDER).is_dir():
        return f"it has no {RESUME_FOLDER}/ (only the newest {NUM_RESUMABLE} checkpoints keep it)"
    try:
        state = TrainState.read(checkpoint / PROGRESS)
    except UserError as error:
        return str(error)
    if f"step-{state.step:06d}" != checkpoint.name:
        return f"its {PROGRESS} is of step {state.step}"
    return find_tensor_damage(checkpoint / RESUME_FOLDER / OPTIMIZER_FILE)


def _metrics_before(content: str, state: TrainState) -> str:
    """The lines of metrics.jsonl of steps up to `state.step`, without damaged ones (a power cut)."""
    kept, damaged = [], []
    for text in filter(None, content.split("\n")):
        try:
            line = json.loads(text)
            is_before = bool(line["step"] <= state.step)
        except (ValueError, TypeError, KeyError, RecursionError):
            damaged.append(text)
            continue
        is_repeated = line["step"] == state.step and state.eval_pending and "dev_loss" in line
        if is_before and not is_repeated:
            kept.append(text + "\n")
    if damaged:
        count = format_count(len(damaged), "damaged line")
        warning(f"{METRICS}: removed {count}, the first: {damaged[0][:40]!r}")
    return "".join(kept)
