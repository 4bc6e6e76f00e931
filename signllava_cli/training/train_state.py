"""Everything of a run that must survive a restart, besides weights and optimizer state: one small JSON object."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError, first_validation_error
from signllava_cli.files import read_json, write_json


@dataclass
class TrainState:
    """The state of a run after `step` optimizer steps; counts and seconds are sums over all processes and restarts.

    Counts over the steps: `clips`; `targets`, answer tokens; `tokens`, all tokens of the sequences, one for each
    stream vector; `padding`, padding tokens; `truncated_frames` and `truncated_sentences`, removed to keep
    `data.max_seq_len`; `seconds`, and of these `data_wait_seconds` waiting for data.
    `skipped_steps`: steps without an update, because loss or gradients were not finite. `loss_mean`, `loss_spread`:
    moving averages of the loss and of its distance from `loss_mean`. `best_score`: the lowest dev loss or the highest
    dev BLEU, at step `best_step`; `stale_evaluations`: evaluations since then. `eval_pending`: the dev split has not
    been scored at this step yet. `num_processes`: the processes that took the last step.
    """

    step: int = 0
    clips: int = 0
    targets: int = 0
    tokens: int = 0
    padding: int = 0
    truncated_frames: int = 0
    truncated_sentences: int = 0
    skipped_steps: int = 0
    loss_mean: float = 0.0
    loss_spread: float = 0.0
    best_score: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    eval_pending: bool = False
    num_processes: int = 1
    seconds: float = 0.0
    data_wait_seconds: float = 0.0

    @classmethod
    def read(cls, file: Path) -> "TrainState":
        """Read the file that `write` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(read_json(file)), strict=True)
        except ValidationError as invalid:
            reason = first_validation_error(invalid)
            raise UserError(f"{file} is damaged: {reason}; copy the checkpoint again.") from None

    def write(self, file: Path) -> None:
        """Write the state as JSON, atomically."""
        write_json(file, asdict(self))
