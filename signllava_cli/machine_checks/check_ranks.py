"""Two ranks, started as a user would start them, must have the losses of one."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from signllava_cli.errors import UserError
from signllava_cli.machine_checks.check_result import CheckResult, guarded
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.processes import kill_families, repeat_option
from signllava_cli.recipe import format_override, read_recipe

RECIPE = "toy/tiny_pretrain"
STEPS, TOLERANCE, SECONDS = 2, 1e-3, 300
NCCL_ADVICE = (
    "set NCCL_DEBUG=INFO and run it again; NCCL_P2P_DISABLE=1 avoids a broken link between GPUs, NCCL_SOCKET_IFNAME "
    "names the network interface"
)
GLOO_ADVICE = "set GLOO_SOCKET_IFNAME=lo, the network interface, and run it again"


def check_ranks() -> Iterator[CheckResult]:
    """Train a tiny LLM on one rank and on two: on two GPUs with NCCL, or without these on the CPU with gloo."""
    yield guarded("two ranks", _compare_ranks, _advice())


def _has_gpus() -> bool:
    return torch.cuda.device_count() >= 2


def _advice() -> str:
    return NCCL_ADVICE if _has_gpus() else GLOO_ADVICE


def _compare_ranks() -> tuple[str, str]:
    has_gpus = _has_gpus()
    profile = "multi_gpu" if has_gpus else "multi_cpu"
    where = "2 GPUs, NCCL" if has_gpus else "the CPU, gloo, because there are fewer than 2 GPUs"
    environment = os.environ if has_gpus else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory(prefix="signllava-") as name:
        folder = Path(name)
        write_toy_corpus(folder / "corpus")
        with contextlib.redirect_stdout(io.StringIO()):  # its progress
            save_tiny_llm(folder / "llm", folder / "corpus", read_recipe(RECIPE).tasks, steps=1)
        one = _train(folder, "one", environment)
        two = _train(folder, "two", environment, "--launch", profile, "--num-processes", "2")
    seen = f"2 ranks on {where}: losses {_format(two)}, on one rank {_format(one)}"
    is_equal = len(one) == len(two) == STEPS and all(map(_is_close, one, two))
    return seen, "" if is_equal else f"the losses differ: {_advice()}"


def _is_close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=TOLERANCE)


def _format(losses: list[float]) -> str:
    return ", ".join(f"{loss:.6f}" for loss in losses)


def _train(folder: Path, run: str, environment: "os._Environ[str] | dict[str, str]", *options: str) -> list[float]:
    """The losses of the steps of a training run.

    Raises:
        UserError: it failed, or did not end.
    """
    paths = {"llm.path": folder / "llm", "data.root": folder / "corpus", "run.output_dir": folder / run}
    settings = [format_override(*setting) for setting in paths.items()]
    settings += [f"train.{key}={STEPS}" for key in ("max_steps", "eval_steps", "save_steps", "micro_batch_size")]
    settings += ["train.batch_size=4", "track.logging_steps=1"]
    words = ["pretrain", "--recipe", RECIPE, *repeat_option("--set", settings), *options]
    command = [sys.executable, "-m", "signllava_cli", *words]
    output = subprocess.STDOUT
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True, env=environment)
    try:
        printed, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"the {run}-rank run did not end within {SECONDS} s: {_advice()}") from None
    finally:
        if process.poll() is None:
            kill_families([psutil.Process(process.pid)])
            process.wait()
    if process.returncode:
        errors = [line for line in printed.splitlines() if "rror" in line] or printed.splitlines()[-1:]
        raise UserError(f"the {run}-rank run ended with exit code {process.returncode}: {' '.join(errors[-1:])}")
    lines = (folder / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]
