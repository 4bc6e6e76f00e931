"""The folder of a run: its checkpoints, its `best` and `last`, its recipe, metrics and log.

Only the main process writes. A checkpoint appears by a rename, so any `step-*` folder is whole unless the disk
damaged it, and a half-written one is `step-*.tmp`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from signllava_cli.console import IS_MAIN_PROCESS, say, warn
from signllava_cli.errors import UserError
from signllava_cli.files import (
    HALF_WRITTEN,
    REMOVED,
    point,
    pointed_at,
    remove_folder,
    take_folder,
    write_text,
    written_folder,
)
from signllava_cli.model.checkpoint import (
    PROGRESS,
    RECIPE,
    STEP_FOLDER,
    CheckpointConfig,
    damage,
    tensor_damage,
)
from signllava_cli.recipe import Recipe, read_recipe
from signllava_cli.training.progress import Progress
from signllava_cli.training.record import METRICS
from signllava_cli.training.snapshot import OPTIMISER, RESUME, Snapshot, write_snapshot
from signllava_cli.training.trackers import Trackers

LOG = "log.txt"
RESUMABLE = 2  # the newest checkpoints that keep their optimiser: one, and one to fall back on

# What a resumed run may change: where things lie and how often it reports, but nothing that it computes.
SAFE_TO_CHANGE = (
    "run.folder",
    "llm.path",
    "data.root",
    "data.workers",
    "init.",
    "generate.",
    "track.",
    "launch.",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "train.stop_at_step",
    "train.max_hours",
    "train.micro_batch_size",
    "train.smoke_pass",
    "train.skip_nonfinite",
    "train.patience",
)


class RunFolder:
    """The run folder at `path`; made when it is not there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.metrics, self.log = self.path / METRICS, self.path / LOG
        self._trackers: Trackers | None = None
        if IS_MAIN_PROCESS:
            self._taken = take_folder(self.path)

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
                    f"{self.path} already holds checkpoints and --resume is never: name another run.folder, "
                    "or move this one away."
                )
            return None
        if resume != "auto":
            chosen = pointed_at(Path(resume).expanduser()) or Path(resume)
            fault = damage(chosen) or _lacks_resume(chosen)
            if fault:
                raise UserError(f"--resume {resume}: no whole checkpoint there ({fault})")
            if chosen.resolve().parent != self.path.resolve():
                raise UserError(
                    f"--resume {resume} is of another run than {self.path}; to start from its weights, "
                    "set init.projector."
                )
            return chosen
        for half in sorted(self.path.glob(f"step-*{HALF_WRITTEN}")):
            warn(f"{half} was never finished; it is ignored and will be removed.")
            if IS_MAIN_PROCESS:
                shutil.rmtree(half, ignore_errors=True)
        for remainder in self.path.glob(f".step-*{REMOVED}"):
            if IS_MAIN_PROCESS:
                shutil.rmtree(remainder, ignore_errors=True)
        found = self.checkpoints()
        for checkpoint in reversed(found):
            fault = damage(checkpoint) or _lacks_resume(checkpoint)
            if fault is None:
                return checkpoint
            warn(f"{checkpoint} cannot be resumed: {fault}")
        if found:
            raise UserError(f"No checkpoint in {self.path} can be resumed; name another run.folder to start anew.")
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
                "run.folder to start anew."
            )
        for key in changed:
            say(f"resumed with {key}: {before.get(key)} -> {now.get(key)}")

    def save(self, snapshot: Snapshot, progress: Progress, config: CheckpointConfig, recipe: Recipe) -> Path:
        """Write a checkpoint, point `last` at it, and take away what is no longer needed."""
        checkpoint = self.path / f"step-{progress.step:06d}"
        with written_folder(checkpoint) as folder:
            write_snapshot(folder, snapshot, progress, config, recipe)
        point(self.path / "last", checkpoint.name)
        self._prune(recipe.train.keep)
        return checkpoint

    def point_best(self, progress: Progress) -> None:
        """Let `best` point at the checkpoint of the progress's best step, and keep the progress with its step."""
        if progress.best_step is not None:
            point(self.path / "best", f"step-{progress.best_step:06d}")
        progress.write(self.path / f"step-{progress.step:06d}" / PROGRESS)

    def begin(self, recipe: Recipe, progress: Progress) -> None:
        """Write the resolved recipe, and take back the metrics that a killed run wrote after its last save."""
        if not IS_MAIN_PROCESS:
            return
        write_text(self.path / RECIPE, recipe.to_yaml())
        say(f"the whole recipe is in {self.path / RECIPE}")
        self._trackers = Trackers(recipe, self.path, progress.step)
        if self.metrics.is_file():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.metrics, "".join(line for line in lines if _stands(line, progress)))

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
        for checkpoint in checkpoints[:-RESUMABLE]:
            shutil.rmtree(checkpoint / RESUME, ignore_errors=True)
        pointed = [pointed_at(self.path / link) for link in ("best", "last")]
        kept = {target.name for target in pointed if target is not None}
        for checkpoint in checkpoints[:-keep]:
            if checkpoint.name not in kept:
                remove_folder(checkpoint)


def _is_safe(key: str, before: Any, now: Any) -> bool:
    if key == "train.tokens_per_batch":  # any budget divides the same steps; with and without one they differ
        return before is not None and now is not None
    return key.startswith(SAFE_TO_CHANGE)


def _lacks_resume(checkpoint: Path) -> str | None:
    if not (checkpoint / RESUME).is_dir():
        return f"it has no {RESUME}/ (the newest {RESUMABLE} checkpoints keep it)"
    try:
        progress = Progress.read(checkpoint / PROGRESS)
    except UserError as fault:
        return str(fault)
    if f"step-{progress.step:06d}" != checkpoint.name:
        return f"its {PROGRESS} is of step {progress.step}"
    return tensor_damage(checkpoint / RESUME / OPTIMISER)


def _stands(text: str, progress: Progress) -> bool:
    """Whether a line of metrics.jsonl is of the run up to `progress`; a damaged one (a power cut) is not."""
    try:
        line = json.loads(text)
        line["step"] + 0
    except (ValueError, TypeError, KeyError):
        warn(f"{METRICS}: a damaged line was taken out: {text[:40]!r}")
        return False
    if line["step"] == progress.step:
        return not (progress.evaluation_due and "dev_loss" in line)
    return bool(line["step"] < progress.step)
