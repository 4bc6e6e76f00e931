"""AdamW over the trained parameters, the learning-rate schedule, and the optimiser's state as safetensors."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from signllava_cli.errors import UserError
from signllava_cli.model.llm import read_tensors
from signllava_cli.model.signllava import SignLlava
from signllava_cli.recipe import Recipe, Train

STATE = ("exp_avg", "exp_avg_sq", "step")


def make_optimiser(model: SignLlava, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group per learning rate and decay; vectors (biases, norms) and boundaries do not decay."""
    train = recipe.train
    projector_rate = train.projector_learning_rate or train.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.trained_parameters().items():
        rate = projector_rate if name.startswith("projectors.") else train.learning_rate
        decays = parameter.ndim > 1 and not name.endswith(".boundary")
        groups.setdefault((rate, train.weight_decay if decays else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": its, "lr": rate, "base_lr": rate, "weight_decay": d} for (rate, d), its in groups.items()],
        betas=train.betas,
    )


def schedule_factor(step: int, steps: int, train: Train) -> float:
    """The share of its learning rate that step `step` of `steps` (from 0) is taken with.

    Linear warm-up over the first `warmup` share of the steps; then constant, linear to zero, or half a cosine
    to zero (SGDR, arXiv:1608.03983, without restarts; as transformers' get_cosine_schedule_with_warmup).
    """
    warmup = math.ceil(train.warmup * steps)
    if step < warmup:
        return step / warmup
    share = (step - warmup) / max(1, steps - warmup)
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "linear":
        return max(0.0, 1.0 - share)
    return 0.5 * (1.0 + math.cos(math.pi * share))


def set_learning_rate(optimiser: torch.optim.AdamW, factor: float) -> float:
    """Give every group its share of its own rate; the first group's rate comes back, for the log."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimiser.param_groups[0]["lr"])


def save_optimiser(optimiser: torch.optim.AdamW, model: SignLlava, file: Path) -> None:
    """Write AdamW's moments, each under its parameter's name."""
    tensors = {}
    for name, parameter in model.trained_parameters().items():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{name}:{key}"] = value.detach().cpu().contiguous()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)


def load_optimiser(optimiser: torch.optim.AdamW, model: SignLlava, file: Path) -> None:
    """Give the optimiser the moments in `file`, strictly.

    Raises:
        UserError: the file is missing or damaged, or is of other trained parameters.
    """
    tensors = read_tensors(file)
    parameters = model.trained_parameters()
    expected = {f"{name}:{key}" for name in parameters for key in STATE}
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)[0]
        raise UserError(f"{file} is not the optimiser of this recipe's trained parameters ({odd}).")
    for name, parameter in parameters.items():
        state = {key: tensors[f"{name}:{key}"] for key in STATE}
        optimiser.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
        }
