"""One optimiser step: micro-batches forward and backward, clip, step."""

import contextlib
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from signllava_cli.data.batches import Batch
from signllava_cli.data.examples import Cuts
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class StepResult:
    """One optimiser step over all ranks: mean loss per target, counts, gradient norm, what was cut, seconds."""

    loss: float
    targets: int
    positions: int
    gradient_norm: float
    cuts: Cuts
    seconds: float


def optimiser_step(
    model: torch.nn.Module,
    trained: list[torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    micro_batches: list[Batch],
    recipe: Recipe,
    accelerator: Accelerator,
) -> StepResult:
    """Take one step on the mean loss per target token of all micro-batches on all ranks.

    Raises:
        UserError: loss or gradients are not finite; the weights are untouched and the clips are named.
    """
    began = time.monotonic()
    targets, positions, cuts = _counted(micro_batches, accelerator)
    loss_sum = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        is_last = number == len(micro_batches)
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            loss, _ = model(batch.to(accelerator.device), recipe.train.label_smoothing)
            # DDP averages gradients over ranks, while the loss is the sum over all of them
            accelerator.backward(loss * (accelerator.num_processes / targets))
        loss_sum += loss.detach()
    gradient_norm = float(torch.nn.utils.clip_grad_norm_(trained, recipe.train.max_grad_norm or math.inf))
    mean_loss = float(accelerator.reduce(loss_sum, "sum")) / targets
    if not (math.isfinite(mean_loss) and math.isfinite(gradient_norm)):
        clips = ", ".join(clip for batch in micro_batches for clip in batch.clips)
        raise UserError(
            f"Loss {mean_loss} and gradient norm {gradient_norm} are not finite; the weights were not touched. "
            f"Clips of this step: {clips}. Take them out, or lower train.learning_rate."
        )
    optimiser.step()
    optimiser.zero_grad()
    return StepResult(mean_loss, targets, positions, gradient_norm, cuts, time.monotonic() - began)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make what a step draws (dropout) a function of (seed, step, rank), so that no RNG state need be kept."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _counted(micro_batches: list[Batch], accelerator: Accelerator) -> tuple[int, int, Cuts]:
    """Targets, positions and cuts of the whole step, over all ranks."""
    counts = torch.zeros(4, dtype=torch.int64, device=accelerator.device)
    for batch in micro_batches:
        positions = int(batch.attention_mask.sum())
        counts += torch.tensor(
            [len(batch.targets), positions, batch.cuts.frames, batch.cuts.sentences], device=counts.device
        )
    targets, positions, frames, sentences = accelerator.reduce(counts, "sum").tolist()
    return targets, positions, Cuts(frames, sentences)
