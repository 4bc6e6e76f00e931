"""Everything of a run that must survive a restart, besides weights and optimiser: one small JSON object."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError
from signllava_cli.files import read_json, write_json


@dataclass
class Progress:
    """Where the run stands after `step` optimiser steps.

    `clips`, `targets`, `positions`: seen so far (answer tokens; positions of all kinds without padding).
    `cut_frames`, `cut_sentences`: what sequences lost to the token budget. `evaluation_due`: the dev set has
    not been scored at this step although it should be. `seconds`: spent training, over all restarts.
    """

    step: int = 0
    clips: int = 0
    targets: int = 0
    positions: int = 0
    cut_frames: int = 0
    cut_sentences: int = 0
    best_dev_loss: float | None = None
    best_step: int | None = None
    evaluation_due: bool = False
    seconds: float = 0.0

    @classmethod
    def read(cls, file: Path) -> "Progress":
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
