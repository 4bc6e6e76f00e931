"""The ranks of a launch in generation. They share clips and files; they run no collective operation on the model."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch

from signllava_cli.errors import UserError
from signllava_cli.preemption import is_launched

# How long ranks wait for each other. NCCL's 10 minutes are too short where one rank builds an index, loads an LLM
# from a cold file system, or saves.
COLLECTIVE_TIMEOUT = timedelta(hours=2)


def rank_device() -> torch.device:
    """The GPU of this rank, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def main_process_first() -> Iterator[bool]:
    """Rank 0 runs the block before the other ranks do. Yields whether this is rank 0.

    Raises:
        UserError: the ranks were launched with DeepSpeed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not is_launched():
        yield True
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise UserError("Generation does not run under DeepSpeed: use the launch profile multi_gpu or multi_cpu.")
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=COLLECTIVE_TIMEOUT)
    with state.main_process_first():
        yield state.is_main_process
