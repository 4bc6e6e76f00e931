"""AdamW over the trained parameters, the learning-rate schedule, and the optimizer's state as safetensors."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import get_scheduler

from signllava_cli.errors import UserError
from signllava_cli.model.llm import read_tensors
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe, Train

STATE_KEYS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(model: SignLlavaModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group per learning rate and decay; vectors (biases, norms) and boundaries do not decay.

    A group knows its `rate_key`, the recipe's key that its rate comes from, and `base_lr`, this rate.
    """
    train = recipe.train
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in model.trainable_parameters().items():
        has_own_rate = name.startswith("projectors.") and train.projector_learning_rate is not None
        decays = parameter.ndim > 1 and not name.endswith(".boundary")
        kind = ("projector_learning_rate" if has_own_rate else "learning_rate", train.weight_decay if decays else 0.0)
        groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": its, "lr": rate, "base_lr": rate, "rate_key": key, "weight_decay": decay}
            for (key, decay), its in groups.items()
            for rate in [getattr(train, key)]
        ],
        betas=train.betas,
    )


def make_lr_schedule(train: Train, steps: int) -> Callable[[int], float]:
    """From a step of `steps` (counted from 0) to the share of its learning rate that the step is taken with.

    It is the function of the step inside the scheduler that transformers.get_scheduler makes, so it has no state to
    save. The warm-up takes the first `train.warmup_ratio` share of the steps, rounded up; with one, `constant` is what
    transformers calls `constant_with_warmup`. Options that are rates (`min_lr`, `lr_end`) are held against
    `train.learning_rate`: a projector's own rate ends at the same share of itself.

    Raises:
        UserError: transformers refuses an option's value, or the schedule leaves the numbers with it.
    """
    name = "constant_with_warmup" if train.lr_scheduler_type == "constant" else train.lr_scheduler_type
    warmup, options = math.ceil(train.warmup_ratio * steps), train.lr_scheduler_kwargs
    try:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=train.learning_rate)
        factor = get_scheduler(name, optimizer, warmup, steps, dict(options)).lr_lambdas[0]
        shares = [float(factor(step)) for step in (0, min(warmup, steps - 1), steps // 2, steps - 1)]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"train.lr_scheduler_kwargs: {train.lr_scheduler_type} does not take {options}: {error}."
        ) from None
    if not all(math.isfinite(share) and share >= 0 for share in shares):
        raise UserError(
            f"train.lr_scheduler_kwargs: {train.lr_scheduler_type} with {options} leads to no learning rate."
        )
    if warmup + float(options.get("num_decay_steps", 0)) > steps:
        raise UserError(
            f"train.lr_scheduler_kwargs.num_decay_steps: {options['num_decay_steps']} of decay and {warmup} of warm-up "
            f"are more than the run's {steps} steps."
        )
    return lambda step: float(factor(step))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Give every group its share of its own rate; the rates come back by their keys in the recipe, for the log."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["rate_key"]] = group["base_lr"] * factor
    return rates


def write_optimizer_state(optimizer_state: dict[str, Tensor], file: Path) -> None:
    """Write AdamW's state, as an engine gives it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(optimizer_state, file)


def read_optimizer_state(file: Path, trained: Iterable[str]) -> dict[str, Tensor]:
    """AdamW's state of the parameters named `trained`, as `write_moments` wrote it; none of it before the first step.

    Raises:
        UserError: the file is missing or damaged, or is of other trained parameters.
    """
    optimizer_state = read_tensors(file)
    expected = {f"{name}:{key}" for name in trained for key in STATE_KEYS}
    if optimizer_state and set(optimizer_state) != expected:
        odd = sorted(set(optimizer_state) ^ expected)[0]
        raise UserError(f"{file} is not the optimizer of this recipe's trained parameters ({odd}).")
    return optimizer_state
