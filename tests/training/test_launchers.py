"""Every launcher gives the same losses and weights, also when the run is killed and resumed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ALL_TASKS, MadeOnce, interrupted, sets, wait_until_stopped
from safetensors.torch import load_file

from signllava_cli.recipe import shipped_folder

STEPS = 10
LAUNCHERS = {
    "single": (None, "NO"),
    "ddp": ("multi_cpu", "MULTI_CPU"),
    "zero1": ("zero1_cpu", "DEEPSPEED ZeRO-1"),
    "zero2": ("zero2_cpu", "DEEPSPEED ZeRO-2"),
    "zero3": ("zero3_cpu", "DEEPSPEED ZeRO-3"),
}
PAIRS = [
    *(("pretrain", launcher) for launcher in LAUNCHERS),
    ("finetune", "single"),
    ("finetune", "zero2"),
]
COMPARED = [  # with the run of one process
    *(("pretrain", launcher) for launcher in LAUNCHERS if launcher != "single"),
    ("finetune", "ddp"),
    ("finetune", "zero1"),
    ("finetune", "zero2"),
]
# Most of the time of a run is its start: `make test` runs these pairs, `make test-all` all of them.
QUICK_COMPARISONS = [("pretrain", "zero3")]
QUICK_RUNS = [("pretrain", "single"), *QUICK_COMPARISONS]
# Dropout of the adapter differs between ranks, so a finetuning that is compared has none.
WITHOUT_DROPOUT = ("lora.lora_dropout=0", "train.max_steps=6")


def drills_but(quick: list[tuple[str, str]], pairs: list[tuple[str, str]]) -> list[Any]:
    return [pytest.param(*pair, marks=[] if pair in quick else [pytest.mark.drill]) for pair in pairs]


@pytest.fixture(scope="session")
def full_runs(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> "FullRuns":
    return FullRuns(made_once, corpus, tiny_llm)


class FullRuns:
    """Uninterrupted runs, each trained once."""

    def __init__(self, made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> None:
        self.made_once = made_once
        self.config = [*ALL_TASKS, f"llm.path={tiny_llm}", f"data.root={corpus}", f"train.max_steps={STEPS}"]
        self.config += ["train.batch_size=8", "train.micro_batch_size=2", "train.label_smoothing=0.1"]
        self.config += ["train.save_steps=2", "train.eval_steps=4", "track.logging_steps=1", "data.train=dev"]
        self.config += ["train.gradient_checkpointing=true", "train.save_total_limit=30", "init.projector=null"]

    def command(self, stage: str, launcher: str, run: Path, *more: str) -> list[str]:
        profile, _ = LAUNCHERS[launcher]
        more = (*more, "data.num_workers=2") if launcher == "ddp" else more
        arguments = [stage, "--recipe", f"toy/tiny_{stage}", *sets([*self.config, f"run.output_dir={run}", *more])]
        if launcher == "zero2":  # started by `accelerate launch`
            file = shipped_folder("accelerate_configs") / f"{profile}.yaml"
            launch = ["accelerate.commands.launch", "--config_file", str(file), "-m", "signllava_cli"]
            return [sys.executable, "-m", *launch, *arguments]
        return [sys.executable, "-m", "signllava_cli", *arguments, *(["--launch", profile] if profile else [])]

    def run(self, stage: str, launcher: str, *more: str) -> Path:
        def make(run: Path) -> None:
            output = run_to_end(self.command(stage, launcher, run, *more))
            assert f"distributed type {LAUNCHERS[launcher][1]}, ranks {1 if launcher == 'single' else 2}," in output

        return self.made_once("-".join((stage, launcher, *more)), make)

    def comparable(self, stage: str, launcher: str) -> Path:
        return self.run(stage, launcher, *(WITHOUT_DROPOUT if stage == "finetune" else ()))


def run_to_end(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def read_metrics(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def read_losses(run: Path) -> list[float]:
    keys = ("loss", "gradient_norm", "dev_loss")
    return [value for line in read_metrics(run) for key, value in line.items() if key in keys]


def kill_after(command: list[str], run: Path, steps: int) -> None:
    """Kill the launcher and all ranks after `steps` lines of metrics; rank 0 is stopped before it logs another."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=interrupted("metrics.jsonl", steps + 1, signal.SIGSTOP),
    )
    for running_process in wait_until_stopped(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running_process.pid, signal.SIGKILL)
    process.wait()
    assert len(read_metrics(run)) == steps


@pytest.mark.drill
@pytest.mark.parametrize(("stage", "launcher"), PAIRS)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_run(
    full_runs: FullRuns, tmp_path: Path, stage: str, launcher: str
) -> None:
    expected, killed = full_runs.run(stage, launcher), tmp_path / "killed"
    command, step = full_runs.command(stage, launcher, killed), random.randint(3, STEPS - 3)
    kill_after(command, killed, step)
    assert "resumed from" in run_to_end(command)
    files = [file.relative_to(expected) for file in (expected / "last").rglob("*.safetensors")]
    assert len(files) == (3 if stage == "finetune" else 2)
    for file in files:  # the weights, and AdamW's state
        tensors, expected_tensors = load_file(killed / file), load_file(expected / file)
        assert tensors.keys() == expected_tensors.keys()
        assert all(torch.equal(tensors[name], expected_tensors[name]) for name in tensors), (
            f"{file}, killed after step {step}"
        )
    assert read_losses(killed) == read_losses(expected)


@pytest.mark.parametrize(("stage", "launcher"), drills_but(QUICK_COMPARISONS, COMPARED))
def test_every_launcher_gives_the_losses_and_weights_of_one_process(
    full_runs: FullRuns, stage: str, launcher: str
) -> None:
    expected, run = full_runs.comparable(stage, "single"), full_runs.comparable(stage, launcher)
    assert len(read_losses(expected)) >= 2 * 6 + 1
    assert read_losses(run) == pytest.approx(read_losses(expected), rel=1e-5)
    for file in trained_files(stage):
        tensors, expected_tensors = load_file(run / "last" / file), load_file(expected / "last" / file)
        assert tensors.keys() == expected_tensors.keys()
        for name, tensor in expected_tensors.items():
            assert tensor.norm() > 0, name
            assert (tensors[name] - tensor).norm() < 1e-5 * tensor.norm(), name


def trained_files(stage: str) -> list[str]:
    return ["projector.safetensors", *(["adapter/adapter_model.safetensors"] if stage == "finetune" else [])]


@pytest.mark.parametrize(("stage", "launcher"), drills_but(QUICK_RUNS, PAIRS))
def test_a_checkpoint_holds_the_trained_tensors_and_no_frozen_ones(
    full_runs: FullRuns, stage: str, launcher: str
) -> None:
    """Under every launcher its size is that of the trained parameters, plus twice that for AdamW's state."""
    checkpoint = full_runs.run(stage, launcher) / "last"
    files = [file.relative_to(checkpoint) for file in checkpoint.rglob("*") if file.is_file()]
    adapter = {"adapter/README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    texts = {"config.json", "recipe.yaml", "progress.json"}
    expected = {*texts, "projector.safetensors", "resume/optimizer.safetensors"}
    assert set(map(str, files)) == expected | (adapter if stage == "finetune" else set())
    trained: dict[str, torch.Tensor] = load_file(checkpoint / "projector.safetensors")
    assert {name.split(".")[0] for name in trained} == {"sign2vec", "mae"}
    if stage == "finetune":
        lora = load_file(checkpoint / "adapter" / "adapter_model.safetensors")
        assert all(".lora_" in name for name in lora)
        trained |= lora
    optimizer_state = load_file(checkpoint / "resume" / "optimizer.safetensors")
    assert len(optimizer_state) == 3 * len(trained)  # AdamW's two moments and its count of steps
    size = sum(tensor.numel() * tensor.element_size() for tensor in trained.values())
    assert sum((checkpoint / file).stat().st_size for file in files) < 3 * size + 100_000  # headers and text


@pytest.mark.drill
def test_a_run_resumes_under_another_launcher_with_a_warning(full_runs: FullRuns, tmp_path: Path) -> None:
    """On another number of ranks, weights, optimizer, schedule and order are restored; rounding differs."""
    moved = tmp_path / "moved"
    ended = subprocess.run(
        full_runs.command("pretrain", "zero3", moved, "train.stop_at_step=9"),
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ended.returncode == 75, ended.stdout + ended.stderr
    output = run_to_end(full_runs.command("pretrain", "single", moved))
    assert "saved on another number of ranks (2, now 1)" in output
    assert read_losses(moved) == pytest.approx(read_losses(full_runs.run("pretrain", "single")), rel=1e-4)
