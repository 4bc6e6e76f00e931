"""The preflight: the largest memory and disk needs of a run, tried before its first step.

An out-of-memory error or a full disk then stops the run in its first minute, not in its third hour. The preflight
does not change the state of the run: its steps have a learning rate of zero, and AdamW's state is restored.
"""

import contextlib
import math
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from signllava_cli.console import info, print_table
from signllava_cli.data.batches import Batch
from signllava_cli.data.training_set import longest_batch
from signllava_cli.errors import UserError, first_line, format_count
from signllava_cli.files import TEMPORARY_SUFFIX, atomic_folder
from signllava_cli.generation.trial import try_decoding
from signllava_cli.model.layer_weights import weights_memory
from signllava_cli.model.llm_memory import format_bytes
from signllava_cli.prepare.sequence_lengths import measure_embeddings
from signllava_cli.training.optimizer import set_learning_rate
from signllava_cli.training.session import Session
from signllava_cli.training.snapshot import require_read_back, write_snapshot
from signllava_cli.training.step import StepResult, optimizer_step, seed_step

TIMED_STEPS = 3  # timed steps for each warm-up step
PREFETCH_FACTOR = 2  # micro-batches that each worker of torch's DataLoader prepares in advance
PREFLIGHT_FOLDER = "preflight"


@dataclass(frozen=True)
class PreflightResult:
    """The size of the longest batch (clips, tokens with padding), and what it and a checkpoint took.

    `peak_memory`, `checkpoint_size`: in bytes. `dev_seconds`: the duration of one batch of the dev loss.
    """

    num_clips: int
    num_tokens: int
    peak_memory: int
    checkpoint_size: int
    dev_seconds: float


def preflight(session: Session) -> PreflightResult:
    """Decode some clips, take a step on the longest batch, score a dev batch; write, read and remove a checkpoint.

    Raises:
        UserError: an LLM that cannot be decoded, not enough memory or disk space, loss or gradients that are not
            finite, or a checkpoint that reads back with other values.
    """
    optimizer_state = session.engine.optimizer_state()
    longest = longest_batch(session.recipe, session.training_set, session.collate)
    num_clips, num_tokens = len(longest.clips), longest.input_ids.numel()
    size = f"{format_count(num_clips, 'clip')}, {num_tokens} tokens"
    try:
        try_decoding(session.bundle, session.recipe)
        session.try_dev_decoding()
        with _refusing_compilation_errors(session.recipe.train.torch_compile):
            result = _zero_lr_step(session, [longest])
        start_time = time.monotonic()
        session.dev_loss(should_stop=lambda: False, num_batches=1)
        dev_seconds = time.monotonic() - start_time
    except torch.OutOfMemoryError:
        raise UserError(
            f"Out of memory: the longest batch of this run ({size}) does not fit. "
            "Set train.gradient_checkpointing=true, or lower train.micro_batch_size, train.max_tokens_per_batch or "
            "data.max_seq_len; for dev BLEU, lower generate.batch_size."
        ) from None
    if not result.is_finite:
        raise UserError(
            f"Loss {result.loss} and gradient norm {result.gradient_norm} of the longest batch are not finite before "
            f"the first step (clips {', '.join(longest.clips)}); check the weights of the LLM and init.projector."
        )
    memory, checkpoint_size = peak_memory(session.accelerator.device), _check_checkpoint(session)
    session.engine.set_optimizer_state(optimizer_state)
    info(
        f"preflight: longest batch {size}; peak memory {memory / 2**30:.2f} GiB; "
        f"checkpoint {checkpoint_size / 2**20:.1f} MiB written, read back and removed"
    )
    return PreflightResult(num_clips, num_tokens, memory, checkpoint_size, dev_seconds)


@contextlib.contextmanager
def _refusing_compilation_errors(torch_compile: bool) -> Iterator[None]:
    """Turn the errors of torch.compile into a UserError: a GPU needs a C compiler for it, a CPU one of C++."""
    if not torch_compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        cause = getattr(error, "inner_exception", error)
        raise UserError(
            f"train.torch_compile: the LLM's layers could not be compiled ({first_line(cause)}); install a compiler "
            "(gcc), or set train.torch_compile=false."
        ) from error


def dry_run(session: Session) -> None:
    """Run the preflight, time some steps, and print the memory and the hours that the run would take."""
    checked, recipe = preflight(session), session.recipe
    optimizer_state = session.engine.optimizer_state()
    num_warmup_steps, last_step = _timed_steps(session)
    results = [_zero_lr_step(session, *batches) for batches in session.batches(last_step)]
    results = results[num_warmup_steps:] or results
    session.engine.set_optimizer_state(optimizer_state)
    num_steps = session.num_steps - session.state.step
    tokens_per_step = float(session.training_set.lengths.mean()) * recipe.train.batch_size
    seconds = sum(result.seconds for result in results)
    tokens_per_second = sum(result.num_tokens for result in results) / seconds
    wait_share = sum(result.data_wait_seconds for result in results) / seconds
    training_seconds = tokens_per_step / tokens_per_second * num_steps
    num_evaluations = math.ceil(session.num_steps / recipe.train.eval_steps)
    dev_batches = math.ceil(len(session.dev_set.split.clips) / recipe.train.micro_batch_size / session.num_processes)
    evaluation_seconds = num_evaluations * dev_batches * checked.dev_seconds
    rows = [
        ["longest batch", f"{format_count(checked.num_clips, 'clip')}, {checked.num_tokens:,} tokens"],
        ["weights of the LLM", format_bytes(weights_memory(session.bundle.model.llm))],
        ["peak memory of rank 0", f"{checked.peak_memory / 2**30:.2f} GiB"],
        ["checkpoint", f"{checked.checkpoint_size / 2**20:.1f} MiB"],
        ["optimizer steps", f"{num_steps:,}"],
        ["embeddings per clip", _format_embeddings(session)],
        ["tokens per step, expected", f"{tokens_per_step:,.0f}"],
        ["tokens per second", f"{tokens_per_second:,.0f}"],
        ["training", _format_duration(training_seconds)],
        ["of this, waiting for data", f"{wait_share:.0%}".replace("%", " %")],
        [f"{num_evaluations} dev losses", _format_duration(evaluation_seconds)],
    ]
    print_table("Dry run", ["", "measured or expected"], rows)


def _format_embeddings(session: Session) -> str:
    """The mean number of embeddings of a clip's frames, and what `stack`, `conv` and `join` save."""
    projectors = measure_embeddings(session.training_set.split).values()
    frames, embeddings = sum(each.frames for each in projectors), sum(each.embeddings for each in projectors)
    return f"{embeddings:.1f} of {frames:.1f} frames, {1 - embeddings / frames:.0%} saved"


def _timed_steps(session: Session) -> tuple[int, int]:
    """The number of warm-up steps of a dry run, which are not timed, and the step at which the dry run ends.

    Loader workers start slowly, and then prefetch some micro-batches: only when these are consumed does the time of a
    step show the speed of the workers. `TIMED_STEPS` times as many steps are timed, because workers prefetch again
    during slow first steps.
    """
    step = session.state.step
    num_prefetched = PREFETCH_FACTOR * session.recipe.data.num_workers  # micro-batches
    rank, num_processes = session.accelerator.process_index, session.num_processes
    per_step = len(session.training_set.micro_batches(step, rank, num_processes))
    num_warmup_steps = max(1, math.ceil(num_prefetched / per_step))
    return num_warmup_steps, min(step + num_warmup_steps + TIMED_STEPS * num_warmup_steps, session.num_steps)


def _format_duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def peak_memory(device: torch.device) -> int:
    """The peak memory of this process in bytes: allocated on its GPU, or its resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _zero_lr_step(session: Session, micro_batches: list[Batch], wait_seconds: float = 0.0) -> StepResult:
    """An optimizer step with a learning rate of zero: AdamW's state changes, the weights do not."""
    seed_step(session.recipe.run.seed, session.state.step, session.accelerator.process_index)
    set_learning_rate(session.optimizer, 0.0)
    smoothing = session.recipe.train.label_smoothing
    return optimizer_step(session.engine, micro_batches, smoothing, session.accelerator, wait_seconds)


def _check_checkpoint(session: Session) -> int:
    """Write a checkpoint as `Session.save` does, read it back, compare, and remove it; returns its size in bytes."""
    snapshot, size = session.snapshot(), 0
    if snapshot is not None:
        folder = session.run_folder.path / PREFLIGHT_FOLDER
        try:
            with atomic_folder(folder) as temporary:
                write_snapshot(temporary, snapshot, session.state, session.checkpoint_config(), session.recipe)
            require_read_back(folder, snapshot)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        finally:
            for path in (folder, folder.with_name(folder.name + TEMPORARY_SUFFIX)):
                shutil.rmtree(path, ignore_errors=True)
    session.accelerator.wait_for_everyone()
    return size
