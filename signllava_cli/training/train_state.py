"""Everything of a run that must survive a restart, besides weights and optimizer: one small JSON object."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError
from signllava_cli.files import read_json, write_json


@dataclass
class TrainState:
    """Where the run stands after `step` optimizer steps.

    `clips`, `targets`, `positions`, `padding`: computed so far (answer tokens; positions of all kinds, and those
    that only fill a batch up). `cut_frames`, `cut_sentences`: what sequences lost to the token budget.
    `skipped_steps`: left out because they were not finite. `loss_mean`, `loss_spread`: moving averages of the loss
    and of its distance from them. `best_score`: the lowest dev loss or highest dev BLEU, that of `best_step`;
    `stale_evaluations`: how many there were since. `evaluation_due`: the dev set has not been scored at this step
    although it should be. `ranks`: the processes that took the last step. `seconds`: spent in
    steps, over all restarts; `data_wait_seconds` of them waiting for data.
    """

    step: int = 0
    clips: int = 0
    targets: int = 0
    positions: int = 0
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
    ranks: int = 1
    seconds: float = 0.0
    data_wait_seconds: float = 0.0

    @classmethod
    def read(cls, file: Path) -> "TrainState":
        """What `write` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(read_json(file)), strict=True)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            raise UserError(f"{file} is damaged: {first['loc']} {first['msg']}.") from None

    def write(self, file: Path) -> None:
        """Write the whole file, or leave what was there."""
        write_json(file, asdict(self))
