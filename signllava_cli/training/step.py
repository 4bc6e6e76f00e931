"""One optimizer step: micro-batches forward and backward, clip, step."""

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
    """One optimizer step over all ranks: mean loss per target, counts, gradient norm, what was cut, seconds.

    `positions`: of all kinds, without the `padding` of its batches. `seconds`: of the whole step, including
    `data_wait_seconds`, the longest time that a rank waited for its micro-batches.
    """

    loss: float
    targets: int
    positions: int
    padding: int
    gradient_norm: float
    truncation: Truncation
    seconds: float
    data_wait_seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether the step was taken; where loss or gradients are not finite, no weight was touched."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def optimizer_step(
    engine: Engine,
    micro_batches: list[Batch],
    label_smoothing: float,
    accelerator: Accelerator,
    data_wait_seconds: float = 0.0,
) -> StepResult:
    """Take one step on the mean loss per target token of all micro-batches on all ranks.

    `data_wait_seconds`: how long this rank waited for the micro-batches.
    """
    start_time = time.monotonic() - data_wait_seconds
    targets, positions, padding, truncation, longest_wait = _count_batches(
        micro_batches, accelerator, data_wait_seconds
    )
    # gradients are averaged over the ranks, while the loss is the sum over all of them
    scale = accelerator.num_processes / targets
    loss_sum = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        on_device = batch.to(accelerator.device)
        loss_sum += engine.forward_backward(on_device, label_smoothing, scale, is_last=number == len(micro_batches))
    loss = float(accelerator.reduce(loss_sum, "sum")) / targets
    norm = engine.step()
    return StepResult(
        loss, targets, positions, padding, norm, truncation, time.monotonic() - start_time, longest_wait
    )


def timed(batches: Iterable[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """Each of `batches` and the seconds that were spent waiting for it."""
    start_time = time.monotonic()
    for micro_batches in batches:
        yield micro_batches, time.monotonic() - start_time
        start_time = time.monotonic()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make what a step draws (dropout) a function of (seed, step, rank), so that no RNG state need be kept."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _count_batches(
    micro_batches: list[Batch], accelerator: Accelerator, data_wait_seconds: float
) -> tuple[int, int, int, Truncation, float]:
    """Targets, positions, padding and cuts of the whole step, over all ranks, and the longest wait of a rank."""
    counts = torch.zeros(6, dtype=torch.float64, device=accelerator.device)
    for batch in micro_batches:
        counts[:5] += torch.tensor(
            [
                len(batch.targets),
                batch.num_tokens,
                batch.num_padding,
                batch.truncation.frames,
                batch.truncation.sentences,
            ],
            dtype=counts.dtype,
            device=counts.device,
        )
    counts[5] = data_wait_seconds
    by_rank = accelerator.gather(counts[None])  # (ranks, 6)
    targets, positions, padding, frames, sentences = map(int, by_rank[:, :5].sum(0).tolist())
    return targets, positions, padding, Truncation(frames, sentences), float(by_rank[:, 5].max())
