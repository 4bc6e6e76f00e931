"""Learning-rate schedules equal those of transformers; learning rate and weight decay of each parameter group."""

import inspect

import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType

from signllava_cli.errors import UserError
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.recipe import Train, build_recipe, read_recipe
from signllava_cli.recipe.lr_schedules import OPTIONS, REQUIRED_ONE_OF, LRSchedulerType
from signllava_cli.training.optimizer import make_lr_schedule, make_optimizer, set_learning_rate

STEPS = 50
OPTION_VALUES: dict[str, dict[str, float | str]] = {
    "cosine": {"num_cycles": 1.5},
    "cosine_with_restarts": {"num_cycles": 3},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-4, "warmup_lr_rate": 0.2},
    "polynomial": {"lr_end": 1e-5, "power": 2.0},
    "inverse_sqrt": {"timescale": 7},
    "warmup_stable_decay": {"num_decay_steps": 11, "decay_type": "1-sqrt", "min_lr_ratio": 0.05},
}


@pytest.mark.parametrize("schedule", OPTIONS)
@pytest.mark.parametrize("warmup", [0.0, 0.1])
@pytest.mark.parametrize("with_options", [False, True])
def test_schedule_equals_transformers(schedule: LRSchedulerType, warmup: float, with_options: bool) -> None:
    options = OPTION_VALUES.get(schedule, {}) if with_options or schedule in REQUIRED_ONE_OF else {}
    train = Train(lr_scheduler_type=schedule, warmup_ratio=warmup, lr_scheduler_kwargs=options, learning_rate=0.01)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, round(warmup * STEPS), STEPS, dict(options))
    lr_factor = make_lr_schedule(train, STEPS)
    rates = []
    for step in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        assert 0.01 * lr_factor(step) == pytest.approx(rates[-1], rel=1e-12, abs=1e-15), step
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.01, rel=0.01)


def test_schedules_and_options_are_those_of_transformers() -> None:
    not_supported = {"reduce_lr_on_plateau", "greedy"}  # functions of the loss, not of the step
    assert set(OPTIONS) == {scheduler.value for scheduler in SchedulerType} - not_supported
    set_by_us = {"optimizer", "num_warmup_steps", "num_training_steps", "num_stable_steps", "last_epoch"}
    for schedule, options in OPTIONS.items():
        parameters = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(schedule)]).parameters
        assert set(options) == {name for name in parameters if name != "_"} - set_by_us, schedule


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"lr_scheduler_kwargs": {"min_lr": 0.1}},
            "train.lr_scheduler_kwargs.min_lr: the schedule cosine takes num_cycles",
        ),
        (
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"power": 2}},
            "train.lr_scheduler_kwargs.power: .* no options",
        ),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "train.lr_scheduler_kwargs: .* needs min_lr or min_lr_rate"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.1, "min_lr_rate": 0.1}},
            "train.lr_scheduler_kwargs: .* needs min_lr or min_lr_rate",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "train.lr_scheduler_kwargs: .* needs num_decay_steps"),
        ({"lr_scheduler_type": "greedy"}, "train.lr_scheduler_type: "),
    ],
)
def test_options_that_a_schedule_does_not_have_are_errors_of_the_recipe(
    train: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_recipe({"train": train})


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        ("polynomial", {"lr_end": 1.0}),
        ("polynomial", {"power": "two"}),
        ("inverse_sqrt", {"timescale": 0}),
        ("inverse_sqrt", {"timescale": -3}),
        ("cosine_with_min_lr", {"min_lr_rate": "some"}),
        ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "steep"}),
        ("warmup_stable_decay", {"num_decay_steps": 46}),
    ],
)
def test_option_values_that_are_not_valid_are_errors_that_name_the_key(
    schedule: LRSchedulerType, options: dict[str, float | str]
) -> None:
    with pytest.raises(UserError, match=r"train\.lr_scheduler_kwargs"):
        make_lr_schedule(Train(lr_scheduler_type=schedule, lr_scheduler_kwargs=options, warmup_ratio=0.1), STEPS)


def test_learning_rate_and_weight_decay_of_each_parameter(settings: list[str]) -> None:
    recipe = read_recipe(
        "toy/tiny_finetune",
        [*settings, "init.projector=null", "train.weight_decay=0.1", "train.projector_learning_rate=3e-3"],
    )
    assert recipe.train.projector_learning_rate != recipe.train.learning_rate
    model = load_model_bundle(recipe, torch.device("cpu")).model
    optimizer = make_optimizer(model, recipe)
    rates_and_decays = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.trained_parameters().items():
        rate = recipe.train.projector_learning_rate if name.startswith("projectors") else recipe.train.learning_rate
        decay = 0.0 if parameter.ndim == 1 or "boundary" in name else 0.1
        assert rates_and_decays.pop(id(parameter)) == (rate, decay), name
    assert not rates_and_decays
    assert set_learning_rate(optimizer, 0.5) == {
        "learning_rate": recipe.train.learning_rate / 2,
        "projector_learning_rate": 1.5e-3,
    }
    assert {group["lr"] for group in optimizer.param_groups} == {recipe.train.learning_rate / 2, 1.5e-3}
