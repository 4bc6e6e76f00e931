"""The trained weights and the optimizer state of one step, gathered from all ranks, and written as a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from signllava_cli.errors import UserError
from signllava_cli.model.checkpoint import (
    ADAPTER,
    PROGRESS,
    PROJECTOR,
    CheckpointConfig,
    write_checkpoint,
)
from signllava_cli.model.llm import read_tensors
from signllava_cli.model.lora import ADAPTER_WEIGHTS
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe
from signllava_cli.training.optimizer import write_optimizer_state
from signllava_cli.training.train_state import TrainState

RESUME_FOLDER, OPTIMIZER_FILE = "resume", "optimizer.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """The model, its trained weights by name, and AdamW's state: full tensors, float32, on the CPU."""

    model: SignLlavaModel
    weights: dict[str, Tensor]
    optimizer_state: dict[str, Tensor]


def write_snapshot(
    folder: Path, snapshot: Snapshot, state: TrainState, config: CheckpointConfig, recipe: Recipe
) -> None:
    """Write all files of a checkpoint into the empty `folder`."""
    write_checkpoint(folder, snapshot.model, snapshot.weights, config, recipe)
    state.write(folder / PROGRESS)
    write_optimizer_state(snapshot.optimizer_state, folder / RESUME_FOLDER / OPTIMIZER_FILE)


def require_read_back(folder: Path, snapshot: Snapshot) -> None:
    """Read the tensors in `folder` and check that they equal those of `snapshot`, which was written there.

    Raises:
        UserError: a tensor is missing or differs; the message names it.
    """
    tensors = {f"projectors.{name}": tensor for name, tensor in read_tensors(folder / PROJECTOR).items()}
    if (folder / ADAPTER).is_dir():
        adapter_tensors = read_tensors(folder / ADAPTER / ADAPTER_WEIGHTS)
        # PEFT removes the name of the adapter, `default`, from the tensor names in its file
        names = {name.removeprefix("llm.").replace(".default.", "."): name for name in snapshot.weights}
        tensors |= {names[name]: tensor for name, tensor in adapter_tensors.items()}
    _require_equal(snapshot.weights, tensors, folder)
    _require_equal(snapshot.optimizer_state, read_tensors(folder / RESUME_FOLDER / OPTIMIZER_FILE), folder)


def _require_equal(written: Mapping[str, Tensor], read: Mapping[str, Tensor], folder: Path) -> None:
    for name in written.keys() | read.keys():
        if name not in written or name not in read or not torch.equal(written[name], read[name]):
            raise UserError(
                f"{folder}: the tensor {name} read back differs from the one that was written; check the disk."
            )
