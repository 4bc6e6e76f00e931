"""AdamW over the trained parameters, the learning-rate schedule, and the optimizer state as safetensors."""

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
    """AdamW with one parameter group for each pair of learning rate and weight decay.

    Vectors (biases, norms) and boundary vectors get no weight decay. Each group also holds `rate_key`, the key of
    section `train` that sets its learning rate, and `base_lr`, the value of this key.
    """
    config = recipe.train
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in model.trained_parameters().items():
        has_projector_rate = name.startswith("projectors.") and config.projector_learning_rate is not None
        has_decay = parameter.ndim > 1 and not name.endswith(".boundary")
        rate_key = "projector_learning_rate" if has_projector_rate else "learning_rate"
        groups.setdefault((rate_key, config.weight_decay if has_decay else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "base_lr": rate, "rate_key": rate_key, "weight_decay": decay}
            for (rate_key, decay), parameters in groups.items()
            for rate in [getattr(config, rate_key)]
        ],
        betas=config.betas,
    )


def make_lr_schedule(config: Train, num_steps: int) -> Callable[[int], float]:
    """A function from a step (from 0 to `num_steps` - 1) to the factor of its learning rate.

    The function is the `lr_lambda` of the scheduler of transformers.get_scheduler, so it has no state to save. The
    warm-up takes the first `train.warmup_ratio` of the steps, rounded up; with a warm-up, `constant` is what
    transformers calls `constant_with_warmup`. Options that are rates (`min_lr`, `lr_end`) are relative to
    `train.learning_rate`: `train.projector_learning_rate` ends at the same fraction of its own value.

    Raises:
        UserError: transformers refuses the value of an option, or a factor would be negative or not finite.
    """
    name = "constant_with_warmup" if config.lr_scheduler_type == "constant" else config.lr_scheduler_type
    num_warmup_steps, options = math.ceil(config.warmup_ratio * num_steps), config.lr_scheduler_kwargs
    try:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
        lr_lambda = get_scheduler(name, optimizer, num_warmup_steps, num_steps, dict(options)).lr_lambdas[0]
        probed_steps = (0, min(num_warmup_steps, num_steps - 1), num_steps // 2, num_steps - 1)
        factors = [float(lr_lambda(step)) for step in probed_steps]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"train.lr_scheduler_kwargs: {config.lr_scheduler_type} does not accept {options}: {error}."
        ) from None
    if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
        raise UserError(
            f"train.lr_scheduler_kwargs: {config.lr_scheduler_type} with {options} gives a learning rate that is "
            "negative or not finite."
        )
    if num_warmup_steps + float(options.get("num_decay_steps", 0)) > num_steps:
        raise UserError(
            f"train.lr_scheduler_kwargs.num_decay_steps: {options['num_decay_steps']} steps of decay and "
            f"{num_warmup_steps} of warm-up are more than the {num_steps} steps of the run."
        )
    return lambda step: float(lr_lambda(step))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set the learning rate of each group to `factor` times its base rate; return the rates by recipe key."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["rate_key"]] = group["base_lr"] * factor
    return rates


def write_optimizer_state(optimizer_state: dict[str, Tensor], file: Path) -> None:
    """Write AdamW's state in the form of `Engine.optimizer_state`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(optimizer_state, file)


def read_optimizer_state(file: Path, parameter_names: Iterable[str]) -> dict[str, Tensor]:
    """Read AdamW's state of the trained parameters; it is empty in a checkpoint before the first step.

    Raises:
        UserError: the file is missing or damaged, or holds the state of other parameters.
    """
    optimizer_state = read_tensors(file)
    expected = {f"{name}:{key}" for name in parameter_names for key in STATE_KEYS}
    if optimizer_state and set(optimizer_state) != expected:
        unexpected = sorted(set(optimizer_state) ^ expected)[0]
        raise UserError(
            f"{file} does not match the trained parameters of this recipe ({unexpected}); resume with the recipe of "
            "the checkpoint."
        )
    return optimizer_state
