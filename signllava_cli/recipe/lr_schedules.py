"""The learning-rate schedules of a recipe: those of transformers that depend on the step alone."""

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

# The arguments of transformers.get_scheduler for each, besides the warm-up and the length of the run.
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
# Exactly one of these options is required.
REQUIRED_ONE_OF: dict[LRSchedulerType, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}


def lr_scheduler_errors(schedule: LRSchedulerType, options: Mapping[str, float | str]) -> list[str]:
    """The errors in the names of a schedule's options. transformers checks their values."""
    known, required = OPTIONS[schedule], REQUIRED_ONE_OF.get(schedule, ())
    errors = [
        f"train.lr_scheduler_kwargs.{option}: the schedule {schedule} takes {', '.join(known) or 'no options'}"
        for option in options
        if option not in known
    ]
    if required and sum(option in options for option in required) != 1:
        errors.append(f"train.lr_scheduler_kwargs: the schedule {schedule} needs {' or '.join(required)}")
    return errors
