"""Stages of gpu.py that run the commands: on the tiny toy recipe, as ranks, and with the large LLM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_checks import write_tiny
from gpu_run import Run, Values

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
MANY_STEPS = 100_000


class Commands:
    """Runs commands on the toy corpus and the tiny LLM in `folder`, and reports how each ends."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.settings = [f"llm.path={folder / 'llm'}", f"data.root={folder / 'corpus'}", "llm.dtype=bfloat16"]
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")

    def words(self, name: str, settings: Sequence[str] = (), recipe: str = "toy/tiny_pretrain") -> list[str]:
        """The command of a training whose run folder is `name`."""
        stage = "finetune" if "finetune" in recipe else "pretrain"
        settings = [*self.settings, f"run.output_dir={self.folder / name}", "track.logging_steps=1", *settings]
        return [stage, "--recipe", recipe, *(word for setting in settings for word in ("--set", setting))]

    def start(self, words: Sequence[object], launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, "-m", "signllava_cli", *map(str, words)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def check(
        self,
        name: str,
        words: Sequence[object],
        expected: int | None = 0,
        launcher: Sequence[str] = (),
        during: Callable[[subprocess.Popen[str]], None] | None = None,
    ) -> bool:
        """Report the exit code of a command. `expected`: None if any is. `during`: what to do while it runs."""

        def measure() -> Values:
            process = self.start(words, launcher)
            try:
                if during is not None:
                    during(process)
                output = process.communicate(timeout=max(10, self.run.deadline - time.time()))[0]
            finally:
                process.kill()
            lines = [line for line in output.splitlines() if line.strip()]
            values: Values = {"figure": f"exit code {process.returncode}", "limit": str(expected or 0)}
            if process.returncode != (expected or 0):
                values["figure"] += f": {lines[-1][:150] if lines else ''}"
                values["output"] = lines[-30:]
            is_expected = expected in (None, process.returncode)
            if open_groups := [line for line in lines if "destroy_process_group" in line]:  # a warning of NCCL
                is_expected, values["output"] = False, open_groups
            return {"code": process.returncode, "is_expected": is_expected, **values}

        return self.run.attempt(name, 5, measure)


def stop_after_steps(metrics: Path, steps: int = 3) -> Callable[[subprocess.Popen[str]], None]:
    """A function that sends SIGTERM to a training once it has taken some steps."""

    def stop(process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < steps:
            assert time.monotonic() < deadline, f"no step in 120 s: {metrics}"
            if process.poll() is not None:
                return
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)

    return stop


def run_commands(run: Run) -> None:
    """pretrain that is stopped and resumed, finetune in 4 bits, generate and eval."""
    if run.is_tiny:
        run.report("commands", figure="skipped", skipped="takes minutes on a CPU, where tests of their own run them")
        return
    folder = run.folder / "commands"
    write_tiny(folder, steps=60)
    commands = Commands(run, folder)
    bits = "llm.bits=16"
    many = [bits, f"train.max_steps={MANY_STEPS}", f"train.eval_steps={MANY_STEPS}", f"train.save_steps={MANY_STEPS}"]
    metrics = folder / "pretrain" / "metrics.jsonl"
    commands.check("pretrain, SIGTERM", commands.words("pretrain", many), 75, during=stop_after_steps(metrics))
    if metrics.is_file():
        last = json.loads(metrics.read_text().splitlines()[-1])["step"]
        resumed = [*many, f"train.stop_at_step={last + 20}"]
        commands.check(f"pretrain, resumed from step {last}", commands.words("pretrain", resumed), 75)
    short = ["train.max_steps=20", "train.eval_steps=10", "train.save_steps=10"]
    commands.check("pretrain, 20 steps", commands.words("short", [bits, *short]))
    compiled = [bits, *short, "train.torch_compile=true"]
    projector = f"init.projector={folder / 'short'}"
    finetune = commands.words("finetune", [projector, *short], recipe="toy/tiny_finetune")
    commands.check("finetune, 4 bits, 20 steps", finetune)
    out = folder / "predictions"
    generate = ["generate", "--checkpoint", folder / "finetune", "--split", "dev", "--out", out]
    commands.check("generate", generate)
    commands.check("eval", ["eval", out])
    commands.check("pretrain, torch.compile", commands.words("compiled", compiled))


def run_ranks(run: Run) -> None:
    """One rank over NCCL, in training and generation, ZeRO-2 and ZeRO-3 with one rank, and two ranks on one GPU."""
    if not run.has_gpu:
        run.report("ranks", figure="skipped", skipped="needs CUDA")
        return
    folder = run.folder / "ranks"
    write_tiny(folder, steps=5)
    commands = Commands(run, folder)
    short = ["llm.bits=16", "train.max_steps=8", "train.eval_steps=8", "train.save_steps=8"]
    commands.check("torchrun, NCCL, 1 rank", commands.words("nccl", short), launcher=[*TORCHRUN, "1"])
    launch = ["--launch", "multi_gpu", "--num-processes", "1"]
    commands.check("--launch multi_gpu, 1 rank", [*commands.words("launched", short), *launch])
    for profile in ("zero2", "zero3"):
        words = [*commands.words(profile, short), "--launch", profile, *launch[2:]]
        commands.check(f"--launch {profile}, 1 rank", words)
    generate = ["generate", "--checkpoint", folder / "zero3", "--split", "dev", "--out", folder / "predictions"]
    commands.check("generate, torchrun, NCCL, 1 rank", generate, launcher=[*TORCHRUN, "1"])
    two = commands.words("two", [*short, "train.micro_batch_size=2"])
    commands.check("torchrun, 2 ranks on one GPU", two, None, launcher=[*TORCHRUN, "2"])


def run_recipes(run: Run) -> None:
    """The study recipes on the large LLM, four steps each, and what follows: generate, eval, merge."""
    if run.is_tiny:
        run.report("recipes", figure="skipped", skipped="takes minutes on a CPU, where tests of their own run them")
        return
    commands, folder = Commands(run, run.folder), run.folder
    short = ["train.max_steps=4", "train.eval_steps=4", "train.save_steps=2"]
    commands.check("recipe pretrain, 4 steps", commands.words("pretrain", short, recipe="pretrain"))
    projector = f"init.projector={folder / 'pretrain'}"
    commands.check("recipe finetune, 4 steps", commands.words("finetune", [projector, *short], recipe="finetune"))
    out = folder / "predictions"
    generate = ["generate", "--checkpoint", folder / "finetune", "--split", "dev", "--out", out, "--context", "2"]
    generate += ["--prelude", "2", "--context-source", "predicted", "--set", "generate.max_new_tokens=32"]
    commands.check("generate, predicted context 2+2", generate)
    commands.check("eval", ["eval", out])
    merge = ["checkpoint", "merge", folder / "finetune", "--out", folder / "merged", "--dtype", "bfloat16"]
    commands.check("checkpoint merge", merge)
