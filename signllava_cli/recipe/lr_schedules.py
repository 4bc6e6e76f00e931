"""The learning-rate schedules that a recipe can name: those of transformers that are functions of the step alone."""

from collections.abc import Mapping
from typing import Literal

LRSchedulerType = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "constant",
    "constant_with_warmup",
    "warmup_stable_decay",
]

# What transformers.get_scheduler takes for each, besides the warm-up and the length of the run.
OPTIONS: dict[LRSchedulerType, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "constant": (),
    "constant_with_warmup": (),
    "warmup_stable_decay": ("num_decay_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),
}
# Of these options exactly one must be given.
REQUIRED_ONE_OF: dict[LRSchedulerType, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}


def lr_scheduler_errors(schedule: LRSchedulerType, options: Mapping[str, float | str]) -> list[str]:
    """What is wrong with the names of a schedule's options; their values are transformers' own affair."""
    known, needed = OPTIONS[schedule], REQUIRED_ONE_OF.get(schedule, ())
    errors = [
        f"train.lr_scheduler_kwargs.{option}: the schedule {schedule} takes {', '.join(known) or 'no options'}"
        for option in options
        if option not in known
    ]
    if needed and sum(option in options for option in needed) != 1:
        errors.append(f"train.lr_scheduler_kwargs: the schedule {schedule} needs {' or '.join(needed)}")
    return errors
