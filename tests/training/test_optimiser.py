"""The schedule against transformers' own, and which parameters decay."""

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from signllava_cli.model.assembly import assemble
from signllava_cli.recipe import Train, read_recipe
from signllava_cli.training.optimiser import make_optimiser, schedule_factor

THEIRS = {
    "cosine": get_cosine_schedule_with_warmup,
    "linear": get_linear_schedule_with_warmup,
    "constant": lambda o, num_warmup_steps, num_training_steps: get_constant_schedule_with_warmup(
        o, num_warmup_steps
    ),
}


@pytest.mark.parametrize("schedule", THEIRS)
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_schedule_equals_transformers(schedule: str, warmup: float) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = THEIRS[schedule](optimiser, num_warmup_steps=round(warmup * 50), num_training_steps=50)
    train = Train(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    for step in range(50):
        assert schedule_factor(step, 50, train) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_rates_and_decay_by_part(settings: list[str]) -> None:
    recipe = read_recipe("toy/tiny_finetune", [*settings, "init.projector=null", "train.weight_decay=0.1"])
    model = assemble(recipe, torch.device("cpu")).model
    optimiser = make_optimiser(model, recipe)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.trained_parameters().items():
        rate = recipe.train.projector_learning_rate if name.startswith("projectors") else recipe.train.learning_rate
        decay = 0.0 if parameter.ndim == 1 or "boundary" in name else 0.1
        assert found.pop(id(parameter)) == (rate, decay), name
    assert not found
