"""What signllava does on a GPU: an 8B LLM of random weights, trained and decoded through the package's own code.

    python benchmarks/gpu.py                          all stages, about thirteen minutes on an H100
    python benchmarks/gpu.py --tiny --device cpu      the same code on a tiny LLM

Every stage runs in a process of its own, the most valuable first. A result is printed and appended to `--out` (JSON
lines) as soon as it is there; what fails or finds no time is named. The table at the end has the limit beside each
figure, measured in the same run. Weights and corpus are in memory (/dev/shm) and are removed at the end.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

NEEDED_BYTES = 40 * 2**30  # of the folder: the weights of the LLM, those of its merged copy, and the corpora


@dataclass(frozen=True)
class Stage:
    """A stage: the function that runs it, its time limit, and whether it needs the LLM of stage `setup`.

    Stages that measure no time (`is_timed`) run at the same time, after the others.
    """

    module: str
    function: str
    seconds: float
    needs_llm: bool = True
    is_timed: bool = True


STAGES = {
    "limits": Stage("gpu_checks", "measure_limits", 60, needs_llm=False),
    "setup": Stage("gpu_run", "write_llm_and_corpus", 120, needs_llm=False),
    "decode-bf16": Stage("gpu_decode", "decode_bf16", 120),
    "train-bf16": Stage("gpu_train", "train_frozen", 200),
    "train-nf4": Stage("gpu_train", "train_quantized", 150),
    "decode-nf4": Stage("gpu_decode", "decode_quantized", 120),
    "recipes": Stage("gpu_commands", "run_recipes", 300),
    "sdpa": Stage("gpu_checks", "measure_attention", 60, needs_llm=False),
    "parity": Stage("gpu_checks", "compare_devices", 100, needs_llm=False, is_timed=False),
    "commands": Stage("gpu_commands", "run_commands", 250, needs_llm=False, is_timed=False),
    "ranks": Stage("gpu_commands", "run_ranks", 250, needs_llm=False, is_timed=False),
}


def main(words: list[str] | None = None) -> int:
    """Run the stages; 1 if one of them has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", help=f"some of {','.join(STAGES)}; `setup` is added where it is needed")
    parser.add_argument("--seconds", type=float, default=780, help="time limit of all stages together")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="file of the results, JSON lines")
    parser.add_argument("--tiny", action="store_true", help="a tiny LLM instead of one of 8B parameters")
    parser.add_argument("--quick", action="store_true", help="only the most important sizes of each stage")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--folder", type=Path, help="folder for weights and corpora; kept, and used again")
    parser.add_argument("--in-process", action="store_true", help="run all stages in this process")
    parser.add_argument("--child", metavar="STAGE", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.child:
        importlib.import_module(STAGES[options.child].module)
        run_stage(options.child, float(sys.stdin.readline()), options)
        return 0
    names = options.stages.split(",") if options.stages else list(STAGES)
    if unknown := set(names) - set(STAGES):
        parser.error(f"--stages: {', '.join(sorted(unknown))}; choose from {', '.join(STAGES)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("")
    options.out.with_suffix(".log").write_text("")
    with contextlib.ExitStack() as stack:
        if options.folder is None:
            options.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=choose_parent(options.tiny))))
        options.folder.mkdir(parents=True, exist_ok=True)
        has_llm = (options.folder / "llm" / "config.json").is_file()
        if "setup" not in names and not has_llm and any(STAGES[name].needs_llm for name in names):
            names.insert(names.index("limits") + 1 if "limits" in names else 0, "setup")
        run_all(names, options)
    records = [json.loads(line) for line in options.out.read_text().splitlines()]
    Console(width=200).print(results_table(records))
    return int(any("error" in record or record.get("is_expected") is False for record in records))


def choose_parent(is_tiny: bool) -> str | None:
    """/dev/shm if it has room for the weights, else the folder of temporary files."""
    shared = Path("/dev/shm")
    if not is_tiny and shared.is_dir() and shutil.disk_usage(shared).free >= NEEDED_BYTES:
        return str(shared)
    return None


def run_all(names: list[str], options: argparse.Namespace) -> None:
    """Run the stages, each until its time limit, and name those for which no time is left.

    The process of the next stage is started early: it imports, and waits.
    """
    end = time.time() + options.seconds
    queue = [StageProcess(name, options) for name in sorted(names, key=list(STAGES).index)]
    together: list[StageProcess] = []
    for number, process in enumerate(queue):
        if end - time.time() < 15:
            report(options.out, process.name, skipped=f"{options.seconds:.0f} s are over")
            process.end()
            continue
        process.begin(min(end, time.time() + process.stage.seconds))
        for following in queue[number + 1 : number + 2]:
            following.start()
        if process.stage.is_timed:
            process.finish()
        else:
            together.append(process)
    for process in together:
        process.finish()


class StageProcess:
    """The process of a stage. It imports when it starts, and measures when it has begun."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.stage, self.options = name, STAGES[name], options
        self.log = options.folder / f"{name}.log"
        self.deadline = 0.0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, unless it is running; it waits for its deadline."""
        if self.options.in_process or self.process is not None:
            return
        options = self.options
        command = [sys.executable, __file__, "--child", self.name, "--out", str(options.out)]
        command += [
            "--device",
            options.device,
            "--folder",
            str(options.folder),
            *(["--tiny"] if options.tiny else []),
            *(["--quick"] if options.quick else []),
        ]
        environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ, "HF_HUB_OFFLINE": "1"}
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        if not self.stage.is_timed:
            environment["OMP_NUM_THREADS"] = "1"  # of the stages that run at the same time
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )

    def begin(self, deadline: float) -> None:
        """Let the stage measure until `deadline`."""
        self.deadline = deadline
        if self.options.in_process:
            run_stage(self.name, deadline, self.options)
            return
        self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{deadline}\n")
            self.process.stdin.close()

    def finish(self) -> None:
        """Wait for the end of the stage, or end it some seconds after its time limit."""
        if self.process is None:
            return
        out, log = self.options.out, self.log
        error = "ended at its time limit"
        with contextlib.suppress(subprocess.TimeoutExpired):
            error = f"exit code {self.process.wait(timeout=max(5, self.deadline + 15 - time.time()))}"
        self.end()
        text = log.read_text(errors="replace")
        if error != "exit code 0":
            report(out, self.name, error=error, output=text.splitlines()[-12:])
        with out.with_suffix(".log").open("a") as file:
            file.write(f"=== {self.name}\n{text}\n")

    def end(self) -> None:
        """End the process and those that it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def report(out: Path, stage: str, **values: object) -> None:
    figure = "; ".join(f"{key}: {value}" for key, value in values.items() if key != "output")
    line = json.dumps({"stage": stage, "name": "stage", "figure": figure, "limit": "", **values})
    print(line, flush=True)
    with out.open("a") as file:
        file.write(line + "\n")


def run_stage(name: str, deadline: float, options: argparse.Namespace) -> None:
    """Run a stage in this process."""
    import torch
    from gpu_run import Run

    stage = STAGES[name]
    sizes = options.tiny, options.quick
    run = Run(name, torch.device(options.device), *sizes, options.folder, options.out, deadline)
    getattr(importlib.import_module(stage.module), stage.function)(run)


def results_table(records: list[dict[str, object]]) -> Table:
    machine = next((record["figure"] for record in records if record["name"] == "machine"), "")
    table = Table(title=str(machine), box=SIMPLE_HEAD)
    for column in ("stage", "what", "figure", "limit", "seconds"):
        table.add_column(column, overflow="fold")
    for record in records:
        if record["name"] != "machine":
            seconds = str(record.get("seconds", ""))
            table.add_row(*(str(record[key]) for key in ("stage", "name", "figure", "limit")), seconds)
    return table


if __name__ == "__main__":
    sys.exit(main())
