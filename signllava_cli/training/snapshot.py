"""Everything that training has made up to a moment, gathered from all ranks, as the files of a checkpoint."""

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
from signllava_cli.model.llm import ADAPTER_WEIGHTS, read_tensors
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe
from signllava_cli.training.optimizer import write_optimizer_state
from signllava_cli.training.train_state import TrainState

RESUME_FOLDER, OPTIMIZER_FILE = "resume", "optimizer.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """The model, everything trained of it, and AdamW's state, whole and on the CPU."""

    model: SignLlavaModel
    weights: dict[str, Tensor]
    optimizer_state: dict[str, Tensor]


def write_snapshot(
    folder: Path, snapshot: Snapshot, progress: TrainState, config: CheckpointConfig, recipe: Recipe
) -> None:
    """Write everything of a checkpoint into the empty `folder`."""
    write_checkpoint(folder, snapshot.model, snapshot.weights, config, recipe)
    progress.write(folder / PROGRESS)
    write_optimizer_state(snapshot.optimizer_state, folder / RESUME_FOLDER / OPTIMIZER_FILE)


def require_read_back(folder: Path, snapshot: Snapshot) -> None:
    """Check that `folder` gives back the `snapshot` that was written to it.

    Raises:
        UserError: it does not; names a tensor.
    """
    read = {f"projectors.{name}": tensor for name, tensor in read_tensors(folder / PROJECTOR).items()}
    if (folder / ADAPTER).is_dir():
        adapter = read_tensors(folder / ADAPTER / ADAPTER_WEIGHTS)
        # PEFT leaves the adapter's name, `default`, out of the names in its file
        names = {name.removeprefix("llm.").replace(".default.", "."): name for name in snapshot.weights}
        read |= {names[name]: tensor for name, tensor in adapter.items()}
    _require_same(snapshot.weights, read, folder)
    _require_same(snapshot.optimizer_state, read_tensors(folder / RESUME_FOLDER / OPTIMIZER_FILE), folder)


def _require_same(written: Mapping[str, Tensor], read: Mapping[str, Tensor], folder: Path) -> None:
    for name in written.keys() | read.keys():
        if name not in written or name not in read or not torch.equal(written[name], read[name]):
            raise UserError(f"{folder}: the disk does not give back what was written to it ({name} differs).")
