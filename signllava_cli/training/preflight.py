"""What a run will need at its hungriest, tried before its first step: memory, the dev split, the disk.

An out-of-memory error or a full disk then shows up in the first minute, and not in the third hour. The state of the
run is the same before and after: the steps are taken with a learning rate of zero, and AdamW gets its state back.
"""

import math
import resource
import shutil
import time
from dataclasses import dataclass

import torch

from signllava_cli.console import IS_MAIN_PROCESS, info, print_table
from signllava_cli.data.batches import Batch
from signllava_cli.data.training_set import longest_batch
from signllava_cli.errors import UserError
from signllava_cli.files import TEMPORARY_SUFFIX, atomic_folder
from signllava_cli.training.optimizer import set_learning_rate
from signllava_cli.training.session import Session
from signllava_cli.training.snapshot import require_read_back, write_snapshot
from signllava_cli.training.step import StepResult, optimizer_step, seed_step

TIMED_STEPS = 3  # for each step that warms up
PREFETCHED = 2  # micro-batches that torch's loader lets each worker make ahead
PREFLIGHT_FOLDER = "smoke"


@dataclass(frozen=True)
class PreflightResult:
    """The longest batch (clips, positions with padding), peak memory and checkpoint in bytes, a dev batch in s."""

    clips: int
    positions: int
    memory: int
    checkpoint: int
    dev_seconds: float


def preflight(session: Session) -> PreflightResult:
    """A step on the longest batch, a dev batch, and a checkpoint written, read back and removed.

    Raises:
        UserError: memory or disk do not do, loss or gradients are not finite, or the checkpoint reads back otherwise.
    """
    before = session.engine.optimizer_state()
    longest = longest_batch(session.recipe, session.examples, session.collate)
    size, positions = len(longest.clips), longest.input_ids.numel()
    try:
        result = _zero_lr_step(session, [longest])
        start_time = time.monotonic()
        session.dev_loss(should_stop=lambda: False, batches=1)
        dev_seconds = time.monotonic() - start_time
    except torch.OutOfMemoryError:
        raise UserError(
            f"Out of memory: the longest batch of this run, {size} clips with {positions} positions, does not fit. "
            "Set train.gradient_checkpointing=true, or lower train.micro_batch_size, train.max_tokens_per_batch or "
            "data.max_seq_len."
        ) from None
    if not result.is_finite:
        raise UserError(
            f"Loss {result.loss} and gradient norm {result.gradient_norm} of the longest batch are not finite before "
            f"the first step: {', '.join(longest.clips)}."
        )
    memory, checkpoint = peak_memory(session.accelerator.device), _check_checkpoint(session)
    session.engine.set_optimizer_state(before)
    info(
        f"preflight: longest batch {size} clips, {positions} positions; peak memory {memory / 2**30:.2f} GiB; "
        f"checkpoint {checkpoint / 2**20:.1f} MiB written, read back and removed"
    )
    return PreflightResult(size, positions, memory, checkpoint, dev_seconds)


def dry_run(session: Session) -> None:
    """The preflight, then some steps of the run in time: what it would take, on the screen."""
    rehearsal, recipe, state = preflight(session), session.recipe, session.progress
    before = session.engine.optimizer_state()
    warm_up, last = _steps_to_time(session)
    results = [_zero_lr_step(session, *batches) for batches in session.batches(last)]
    results = results[warm_up:] or results
    session.engine.set_optimizer_state(before)
    tokens = float(session.examples.lengths.mean()) * recipe.train.batch_size
    seconds = sum(result.seconds for result in results)
    speed = sum(result.positions for result in results) / seconds
    waiting = sum(result.data_wait_seconds for result in results) / seconds
    training = tokens / speed * (session.steps - state.step)
    evaluations = math.ceil(session.steps / recipe.train.eval_steps)
    dev_batches = math.ceil(len(session.dev.split.clips) / recipe.train.micro_batch_size / session.ranks)
    evaluation = evaluations * dev_batches * rehearsal.dev_seconds
    rows = [
        ["longest batch", f"{rehearsal.clips} clips, {rehearsal.positions:,} positions"],
        ["peak memory of rank 0", f"{rehearsal.memory / 2**30:.2f} GiB"],
        ["checkpoint", f"{rehearsal.checkpoint / 2**20:.1f} MiB"],
        ["optimizer steps", f"{session.steps - state.step:,}"],
        ["tokens per step, expected", f"{tokens:,.0f}"],
        ["tokens per second", f"{speed:,.0f}"],
        ["training", _duration(training)],
        ["of it waiting for data", f"{waiting:.0%}".replace("%", " %")],
        [f"{evaluations} dev losses", _duration(evaluation)],
    ]
    print_table("Dry run", ["", "measured or expected"], rows)


def _steps_to_time(session: Session) -> tuple[int, int]:
    """How many steps of a dry run are not timed, and the step that it ends before.

    Loader workers start slowly, and then have some micro-batches ready: only after these does the time of a step show
    how fast they are. Three times as many steps are timed, since slow first steps let them get ahead again.
    """
    step = session.progress.step
    ahead = PREFETCHED * session.recipe.data.num_workers  # micro-batches
    in_a_step = len(session.examples.micro_batches(step, session.accelerator.process_index, session.ranks))
    warm_up = max(1, math.ceil(ahead / in_a_step))
    return warm_up, min(step + warm_up + TIMED_STEPS * warm_up, session.steps)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def peak_memory(device: torch.device) -> int:
    """The most memory in bytes that this process has held: on its GPU, or its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _zero_lr_step(session: Session, micro_batches: list[Batch], waited: float = 0.0) -> StepResult:
    """An optimizer step with a learning rate of zero: AdamW's state changes, the weights do not."""
    seed_step(session.recipe.run.seed, session.progress.step, session.accelerator.process_index)
    set_learning_rate(session.optimizer, 0.0)
    smoothing = session.recipe.train.label_smoothing
    return optimizer_step(session.engine, micro_batches, smoothing, session.accelerator, waited)


def _check_checkpoint(session: Session) -> int:
    """Write a checkpoint as `save` would, compare what reads back, and remove it; its size in bytes comes back."""
    snapshot, size = session.snapshot(), 0
    if IS_MAIN_PROCESS:
        folder = session.run.path / PREFLIGHT_FOLDER
        try:
            with atomic_folder(folder) as temporary:
                write_snapshot(temporary, snapshot, session.progress, session.checkpoint_config(), session.recipe)
            require_read_back(folder, snapshot)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        finally:
            for each in (folder, folder.with_name(folder.name + TEMPORARY_SUFFIX)):
                shutil.rmtree(each, ignore_errors=True)
    session.accelerator.wait_for_everyone()
    return size
