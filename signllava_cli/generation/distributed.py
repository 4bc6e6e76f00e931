"""The ranks of a launch in generation. They share clips and files; they run no collective operation on the model."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from signllava_cli.console import IS_MAIN_PROCESS
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.network import Machines
from signllava_cli.preemption import is_launched

# How long ranks wait for each other. NCCL's 10 minutes are too short where one rank builds an index, loads an LLM
# from a cold file system, or saves.
COLLECTIVE_TIMEOUT = timedelta(hours=2)
SHARED_FOLDER_SECONDS = 30  # NFS shows a new file at once, unless the name was looked up before


def uses_gpus() -> bool:
    """Whether ranks compute on GPUs: there are some, and accelerate was not told to use the CPU."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"


def rank_device() -> torch.device:
    """The GPU of this rank, or the CPU."""
    if not uses_gpus():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def require_visible_gpu() -> None:
    """Check that this rank sees the GPU whose index is its local rank; PyTorch's own error names neither.

    Raises:
        UserError: it computes on GPUs, but there is not that one.
    """
    num_gpus, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if uses_gpus() and local_rank >= num_gpus:
        raise UserError(
            f"The process with LOCAL_RANK {local_rank} sees {format_count(num_gpus, 'GPU')}: start one process for "
            "each GPU of the machine, and let every process see all of them (Slurm: --gpus-per-node, not "
            "--gpus-per-task)."
        )


def join_ranks() -> None:
    """Connect the ranks of a launch to each other.

    Raises:
        UserError: the ranks were launched with DeepSpeed, or there are more of them than GPUs.
    """
    require_visible_gpu()
    if _is_alone():
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise UserError("Generation does not run under DeepSpeed: use the launch profile multi_gpu or multi_cpu.")
    from accelerate import PartialState

    PartialState(cpu=not uses_gpus(), timeout=COLLECTIVE_TIMEOUT)


def _is_alone() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or not is_launched()


@contextlib.contextmanager
def main_process_first() -> Iterator[bool]:
    """Rank 0 runs the block before the other ranks do. Yields whether this is rank 0."""
    if _is_alone():
        yield True
        return
    from accelerate import PartialState

    state = PartialState()
    with state.main_process_first():
        yield state.is_main_process


def require_shared_folder(folder: Path) -> None:
    """Check that all machines of a launch see the same `folder`, which exists on rank 0.

    Raises:
        UserError: a machine does not see a file that rank 0 has written into the folder.
    """
    machines = Machines.of_launch()
    if machines is None:
        return
    from accelerate.utils import broadcast_object_list, gather_object

    names = [f".seen-by-all-{uuid.uuid4().hex}"]
    broadcast_object_list(names)
    file = folder / names[0]
    if IS_MAIN_PROCESS:
        file.touch()
    broadcast_object_list(names)  # the file has been written
    blind = gather_object([None if _appears(file) else machines.rank])
    if IS_MAIN_PROCESS:
        file.unlink()
    if numbers := sorted({number for number in blind if number is not None}):
        raise UserError(
            f"{folder} of machine 0 is not the same folder on machine {', '.join(map(str, numbers))}: a file that "
            "machine 0 has written there is missing. Choose a folder on a disk that all machines share."
        )


def require_equal(values: Mapping[str, Any], fix: str) -> None:
    """Check that these values are equal on all machines of a launch.

    Raises:
        UserError: they are not; the message names the machines and the keys, and ends with `fix`.
    """
    machines = Machines.of_launch()
    if machines is None:
        return
    from accelerate.utils import broadcast_object_list, gather_object

    first = [dict(values)]
    broadcast_object_list(first)
    different = sorted(key for key in first[0].keys() | values.keys() if first[0].get(key) != values.get(key))
    found = gather_object([f"machine {machines.rank} ({summarize_names(different)})" if different else None])
    if named := sorted({text for text in found if text is not None}):
        raise UserError(f"Not all machines have the same input; different from machine 0: {', '.join(named)}. {fix}")


def _appears(file: Path) -> bool:
    """Whether `file` exists, or appears soon: a network file system may show an older state for some seconds."""
    deadline = time.monotonic() + SHARED_FOLDER_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
