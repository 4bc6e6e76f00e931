"""COMET (Rei et al. 2022), a learned metric: its own command, with a local checkpoint.

The package of COMET needs older libraries than this one. It is installed in an environment of its own, with its
command `comet-score` on the PATH: `pipx install unbabel-comet`. COMET expects a source sentence, and signing has no
written form: its sources are empty strings, which its signature says.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from signllava_cli.console import info
from signllava_cli.errors import UserError, escape_unprintable, format_count
from signllava_cli.evaluation.metrics.base import SentenceMeanMetric
from signllava_cli.evaluation.metrics.presets import Preset
from signllava_cli.files import read_json, sha256_file
from signllava_cli.processes import run_command

COMMAND = "comet-score"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Comet(SentenceMeanMetric):
    """Mean COMET, times 100, with empty sources.

    Args:
        checkpoint: the .ckpt file of a model with references, such as Unbabel/wmt22-comet-da. The `pretrained_model`
            of its hparams.yaml must be in the cache of Hugging Face, or a local folder.

    Raises:
        UserError: the file or the command `comet-score` is missing.
    """

    labels: ClassVar = {"comet": "COMET"}

    def __init__(self, checkpoint: Path, preset: Preset | None = None) -> None:
        super().__init__(preset)
        command = shutil.which(COMMAND)
        if command is None:
            raise UserError(
                f"--comet needs the command {COMMAND}, which is not on the PATH; install it in an environment of its "
                "own: pipx install unbabel-comet."
            )
        if not checkpoint.is_file():
            raise UserError(f"--comet {checkpoint}: missing; name COMET's checkpoint, model.ckpt.")
        self._command, self._checkpoint = command, checkpoint.absolute()
        self._hash = sha256_file(checkpoint)[:8]

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """COMET's score of each pair.

        Raises:
            UserError: the command fails; the message has its last line of output.
        """
        import torch

        info(f"COMET: {self._command} scores {format_count(len(hypotheses), 'clip')}")
        num_gpus = min(1, torch.cuda.device_count())
        with tempfile.TemporaryDirectory() as folder:
            for name, texts in (("src", [""] * len(references)), ("hyp", hypotheses), ("ref", references)):
                lines = "".join(" ".join(text.split()) + "\n" for text in texts)
                (Path(folder) / name).write_text(lines, encoding="utf-8")
            options = f"-s src -t hyp -r ref --to_json scores.json --gpus {num_gpus} --quiet".split()
            process = run_command(
                [self._command, *options, "--model", str(self._checkpoint)],
                cwd=folder,
                env={**os.environ, **OFFLINE},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                errors="replace",
            )
            file = Path(folder) / "scores.json"
            if process.returncode or not file.is_file():
                output = (process.stderr.strip() or process.stdout.strip() or "it printed nothing").splitlines()[-1]
                raise UserError(f"{COMMAND} ended with {process.returncode}: {escape_unprintable(output)}")
            (rows,) = read_json(file).values()
        if len(rows) != len(hypotheses):
            raise UserError(f"{COMMAND} scored {len(rows)} of {len(hypotheses)} clips.")
        return np.array([row["COMET"] for row in rows], np.float64)

    @property
    def signature(self) -> str:
        """The checkpoint, and the source."""
        return f"comet|checkpoint:{self._checkpoint.parent.parent.name}|weights:{self._hash}|source:empty"
