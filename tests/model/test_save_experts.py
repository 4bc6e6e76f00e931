"""An adapter of experts is saved while no step runs: a save lists the modules that a forward pass changes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets
from families import write_family

from signllava_cli import files


def test_steps_wait_for_the_save_of_adapted_experts(
    signllava: Callable[..., Ended], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fsync, logged = tmp_path / "run", files.fsync, list[list[int]]()

    def wait_for_a_step(path: Path) -> None:
        if not logged and any(part.startswith("step-") for part in path.parts):
            time.sleep(1)
            logged.append([json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()])
        fsync(path)

    monkeypatch.setattr(files, "fsync", wait_for_a_step)
    llm = write_family("mixtral", tmp_path / "llm")
    settings = [f"llm.path={llm}", f"data.root={corpus}", f"run.output_dir={run}", "init.projector=null"]
    settings += ["llm.bits=32", "llm.dtype=float32", "lora.lora_dropout=0", "train.preflight=false"]
    settings += [f"train.{key}=2" for key in ("batch_size", "micro_batch_size", "save_steps", "eval_steps")]
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets([*settings, "train.max_steps=4"]))
    assert ended.code == 0, ended.err
    assert logged == [[1, 2]]
