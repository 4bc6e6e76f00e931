"""One optimizer step: forward and backward of each micro-batch, gradient clipping, update."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from signllava_cli.data.batches import Batch
from signllava_cli.data.examples import Truncation
from signllava_cli.training.engine import Engine


@dataclass(frozen=True)
class StepResult:
    """One optimizer step; counts are sums over all ranks.

    `loss`: mean cross-entropy per target token. `num_targets`: answer tokens. `num_tokens`: all tokens of the
    sequences, one for each stream vector, without `num_padding`. `gradient_norm`: before clipping. `seconds`: the
    duration of the step, including `data_wait_seconds`, the longest time that a rank waited for its micro-batches.
    """

    loss: float
    num_targets: int
    num_tokens: int
    num_padding: int
    gradient_norm: float
    truncation: Truncation
    seconds: float
    data_wait_seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradients are finite; if not, the weights were not updated."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def optimizer_step(
    engine: Engine,
    micro_batches: list[Batch],
    label_smoothing: float,
    accelerator: Accelerator,
    data_wait_seconds: float = 0.0,
) -> StepResult:
    """Take one optimizer step on the mean loss per target token over all micro-batches of all ranks.

    Args:
        data_wait_seconds: how long this rank waited for the micro-batches.
    """
    start_time = time.monotonic() - data_wait_seconds
    num_targets, num_tokens, num_padding, truncation, longest_wait = _count_batches(
        micro_batches, accelerator, data_wait_seconds
    )
    # The engine averages gradients over the ranks, but the loss of the step is the sum over the ranks.
    scale = accelerator.num_processes / num_targets
    loss_sum = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        on_device = batch.to(accelerator.device)
        loss_sum += engine.forward_backward(on_device, label_smoothing, scale, is_last=number == len(micro_batches))
    total_loss = accelerator.reduce(loss_sum, "sum")
    gradient_norm = engine.step()  # waits for the device, and so does float()
    return StepResult(
        loss=float(total_loss) / num_targets,
        num_targets=num_targets,
        num_tokens=num_tokens,
        num_padding=num_padding,
        gradient_norm=gradient_norm,
        truncation=truncation,
        seconds=time.monotonic() - start_time,
        data_wait_seconds=longest_wait,
    )


def with_wait_seconds(batches: Iterable[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """Yield each item of `batches` with the seconds spent waiting for it."""
    start_time = time.monotonic()
    for micro_batches in batches:
        yield micro_batches, time.monotonic() - start_time
        start_time = time.monotonic()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch (dropout) as a function of (seed, step, rank), so that a checkpoint needs no RNG state."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _count_batches(
    micro_batches: list[Batch], accelerator: Accelerator, data_wait_seconds: float
) -> tuple[int, int, int, Truncation, float]:
    """The targets, tokens, padding and truncation of all ranks, and the longest wait of a rank in seconds."""
    truncation = sum((batch.truncation for batch in micro_batches), Truncation())
    counts = [
        sum(len(batch.targets) for batch in micro_batches),
        sum(batch.num_tokens for batch in micro_batches),
        sum(batch.num_padding for batch in micro_batches),
        truncation.frames,
        truncation.sentences,
    ]
    if accelerator.num_processes > 1:
        own = torch.tensor([[*counts, data_wait_seconds]], dtype=torch.float64, device=accelerator.device)
        by_rank = accelerator.gather(own).cpu()  # (ranks, 6)
        counts = [int(count) for count in by_rank[:, :5].sum(0).tolist()]
        data_wait_seconds = float(by_rank[:, 5].max())
    num_targets, num_tokens, num_padding, frames, sentences = counts
    return num_targets, num_tokens, num_padding, Truncation(frames, sentences), data_wait_seconds
