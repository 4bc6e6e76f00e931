"""The folder of a run: its checkpoints, its `best` and `last`, its recipe, metrics and log.

Only the main process writes. A checkpoint appears by a rename, so any `step-*` folder is whole unless the disk
damaged it, and a half-written one is `step-*.tmp`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from signllava_cli.console import IS_MAIN_PROCESS, info, warning
from signllava_cli.errors import UserError
from signllava_cli.files import (
    REMOVED_SUFFIX,
    TEMPORARY_SUFFIX,
    atomic_folder,
    lock_folder,
    read_link,
    remove_folder,
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
from signllava_cli.recipe import Recipe, read_recipe
from signllava_cli.training.metrics_log import METRICS
from signllava_cli.training.snapshot import OPTIMIZER_FILE, RESUME_FOLDER, Snapshot, write_snapshot
from signllava_cli.training.trackers import Trackers
from signllava_cli.training.train_state import TrainState

LOG = "log.txt"
NUM_RESUMABLE = 2  # the newest checkpoints that keep their optimizer: one, and one to fall back on

# What a resumed run may change: where things lie and how often it reports, but nothing that it computes.
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
    "train.skip_nonfinite",
    "train.early_stopping_patience",
)


class RunFolder:
    """The run folder at `path`; made when it is not there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.metrics, self.log = self.path / METRICS, self.path / LOG
        self._trackers: Trackers | None = None
        if IS_MAIN_PROCESS:
            self._taken = lock_folder(self.path)

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first, half-written ones left out."""
        if not self.path.is_dir():
            return []
        steps = {int(found[1]): path for path in self.path.iterdir() if (found := STEP_FOLDER.fullmatch(path.name))}
        return [steps[step] for step in sorted(steps)]

    def checkpoint_to_resume(self, resume: str) -> Path | None:
        """The checkpoint that `--resume` asks for: the newest whole one (`auto`), none (`never`), or a folder.

        Raises:
            UserError: a folder that is no whole checkpoint; `never` in a folder that holds checkpoints; `auto`
                where every checkpoint is damaged.
        """
        if resume == "never":
            if self.checkpoints():
                raise UserError(
                    f"{self.path} already holds checkpoints and --resume is never: name another run.output_dir, "
                    "or move this one away."
                )
            return None
        if resume != "auto":
            chosen = read_link(Path(resume).expanduser()) or Path(resume)
            error = find_damage(chosen) or _find_resume_damage(chosen)
            if error:
                raise UserError(f"--resume {resume}: no whole checkpoint there ({error})")
            if chosen.resolve().parent != self.path.resolve():
                raise UserError(
                    f"--resume {resume} is of another run than {self.path}; to start from its weights, "
                    "set init.projector."
                )
            return chosen
        for half in sorted(self.path.glob(f"step-*{TEMPORARY_SUFFIX}")):
            warning(f"{half} was never finished; it is ignored and will be removed.")
            if IS_MAIN_PROCESS:
                shutil.rmtree(half, ignore_errors=True)
        for remainder in self.path.glob(f".step-*{REMOVED_SUFFIX}"):
            if IS_MAIN_PROCESS:
                shutil.rmtree(remainder, ignore_errors=True)
        found = self.checkpoints()
        for checkpoint in reversed(found):
            error = find_damage(checkpoint) or _find_resume_damage(checkpoint)
            if error is None:
                return checkpoint
            warning(f"{checkpoint} cannot be resumed: {error}")
        if found:
            raise UserError(
                f"No checkpoint in {self.path} can be resumed; name another run.output_dir to start anew."
            )
        return None

    def require_same_recipe(self, checkpoint: Path, recipe: Recipe) -> None:
        """Check that a resumed run changes nothing but what is safe.

        Raises:
            UserError: naming every key that differs and may not.
        """
        before, now = read_recipe(checkpoint / RECIPE).to_flat_dict(), recipe.to_flat_dict()
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        unsafe = [key for key in changed if not _is_safe(key, before.get(key), now.get(key))]
        if unsafe:
            changes = "; ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in unsafe)
            raise UserError(
                f"{checkpoint} was made with another recipe ({changes}); change it back, or name another "
                "run.output_dir to start anew."
            )
        for key in changed:
            info(f"resumed with {key}: {before.get(key)} -> {now.get(key)}")

    def save(self, snapshot: Snapshot, progress: TrainState, config: CheckpointConfig, recipe: Recipe) -> Path:
        """Write a checkpoint, point `last` at it, and take away what is no longer needed."""
        checkpoint = self.path / f"step-{progress.step:06d}"
        with atomic_folder(checkpoint) as folder:
            write_snapshot(folder, snapshot, progress, config, recipe)
        write_link(self.path / "last", checkpoint.name)
        self._prune(recipe.train.save_total_limit)
        return checkpoint

    def update_best_link(self, progress: TrainState) -> None:
        """Let `best` point at the checkpoint of the progress's best step, and keep the progress with its step."""
        if progress.best_step is not None:
            write_link(self.path / "best", f"step-{progress.best_step:06d}")
        progress.write(self.path / f"step-{progress.step:06d}" / PROGRESS)

    def begin(self, recipe: Recipe, progress: TrainState) -> None:
        """Write the resolved recipe, and take back the metrics that a killed run wrote after its last save."""
        if not IS_MAIN_PROCESS:
            return
        write_text(self.path / RECIPE, recipe.to_yaml())
        info(f"the whole recipe is in {self.path / RECIPE}")
        self._trackers = Trackers(recipe, self.path, progress.step)
        if self.metrics.is_file():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.metrics, "".join(line for line in lines if _is_before(line, progress)))

    def record(self, **figures: Any) -> None:
        """Append one line to metrics.jsonl, and tell the trackers."""
        if IS_MAIN_PROCESS:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
            if self._trackers is not None:
                self._trackers.log(**figures)

    def close(self) -> None:
        """Let the trackers finish; a folder in which nothing was written goes as it came."""
        if self._trackers is not None:
            self._trackers.end()
        if IS_MAIN_PROCESS and [each.name for each in self.path.iterdir()] == [Path(self._taken.name).name]:
            shutil.rmtree(self.path)

    def _prune(self, keep: int) -> None:
        checkpoints = self.checkpoints()
        for checkpoint in checkpoints[:-NUM_RESUMABLE]:
            shutil.rmtree(checkpoint / RESUME_FOLDER, ignore_errors=True)
        pointed = [read_link(self.path / link) for link in ("best", "last")]
        kept = {target.name for target in pointed if target is not None}
        for checkpoint in checkpoints[:-keep]:
            if checkpoint.name not in kept:
                remove_folder(checkpoint)


def _is_safe(key: str, before: Any, now: Any) -> bool:
    if key == "train.max_tokens_per_batch":  # any budget divides the same steps; with and without one they differ
        return before is not None and now is not None
    return key.startswith(SAFE_TO_CHANGE)


def _find_resume_damage(checkpoint: Path) -> str | None:
    if not (checkpoint / RESUME_FOLDER).is_dir():
        return f"it has no {RESUME_FOLDER}/ (the newest {NUM_RESUMABLE} checkpoints keep it)"
    try:
        progress = TrainState.read(checkpoint / PROGRESS)
    except UserError as error:
        return str(error)
    if f"step-{progress.step:06d}" != checkpoint.name:
        return f"its {PROGRESS} is of step {progress.step}"
    return find_tensor_damage(checkpoint / RESUME_FOLDER / OPTIMIZER_FILE)


def _is_before(text: str, progress: TrainState) -> bool:
    """Whether a line of metrics.jsonl is of the run up to `progress`; a damaged one (a power cut) is not."""
    try:
        line = json.loads(text)
        line["step"] + 0
    except (ValueError, TypeError, KeyError):
        warning(f"{METRICS}: a damaged line was taken out: {text[:40]!r}")
        return False
    if line["step"] == progress.step:
        return not (progress.eval_pending and "dev_loss" in line)
    return bool(line["step"] < progress.step)
