"""The demo: all steps on the toy corpus, each run as the command that a user would type."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from signllava_cli.console import flush, info, print_table
from signllava_cli.errors import RunStopped, UserError
from signllava_cli.files import read_json, write_json
from signllava_cli.generation.predictions_folder import META_FILE, SECONDS
from signllava_cli.model.checkpoint import find_checkpoint, iterate_tensors
from signllava_cli.processes import run_command

FOLDER_SUFFIXES = {"none": "none", "gold": "gold-n2-m2", "predicted": "predicted-n2-m2"}  # by context source
STAGES = ("pretrain", "finetune")
RESUME_HINT = "run `signllava demo` again to resume."
RECIPES = {"smollm2": "toy/{stage}", "tiny": "toy/tiny_{stage}"}


def run_demo(llm: str, out: Path) -> dict[str, Any]:
    """Prepare, pretrain, finetune, generate and score in the folder `out`; write a summary there and return it.

    Raises:
        UserError: a command failed; it has printed its own message before.
        RunStopped: a signal arrived; the running command has saved its state.
    """
    start_time = time.monotonic()
    corpus, llm_folder = out / "data", out / "llm" / llm
    commands: list[str] = []

    def signllava(*words: str | Path) -> None:
        _run_command([str(word) for word in words], commands)

    if not (corpus / "toy.json").is_file():
        signllava("prepare", "toy", "--out", corpus)
    if not (llm_folder / "config.json").is_file():
        signllava("prepare", "llm", llm, "--out", llm_folder, *(("--corpus", corpus) if llm == "tiny" else ()))
    summaries = {}
    for stage in STAGES:
        run = out / llm / stage
        settings = [f"llm.path={llm_folder}", f"data.root={corpus}", f"run.output_dir={run}"]
        options = [word for setting in settings for word in ("--set", setting)]
        if stage == "finetune":
            options = ["--projector", str(out / llm / "pretrain"), *options]
        signllava(stage, "--recipe", RECIPES[llm].format(stage=stage), *options)
        sources = [word for source in FOLDER_SUFFIXES for word in ("--context-source", source)]
        signllava("generate", "--checkpoint", run, "--context", "2", "--prelude", "2", *sources)
        best = find_checkpoint(run)
        predictions = [run / "predictions" / f"{best.name}.test.{suffix}" for suffix in FOLDER_SUFFIXES.values()]
        signllava("eval", *predictions, "--out", run / "scores.json")
        summaries[stage] = _stage_summary(best, read_json(run / "scores.json"))
    summary = {"llm": llm, "seconds": round(time.monotonic() - start_time, 1), "stages": summaries}
    write_json(out / "summary.json", summary)
    _print_summary(summary, out)
    info("These commands ran; each can be repeated by hand:")
    for command in commands:
        info(f"  {command}")
    return summary


def _run_command(words: list[str], commands: list[str]) -> None:
    command = " ".join(["signllava", *words])
    commands.append(command)
    info(f"\n$ {command}", style="bold cyan")
    flush()
    try:
        code = run_command([sys.executable, "-m", "signllava_cli", *words]).returncode
    except RunStopped as stop:
        raise RunStopped(f"the demo was stopped in `{command}`; {RESUME_HINT}") from stop
    if code != 0:
        raise UserError(f"`{command}` ended with exit code {code}; {RESUME_HINT}")


def _stage_summary(checkpoint: Path, scores: dict[str, Any]) -> dict[str, Any]:
    by_source = {result["context_source"]: result for result in scores["results"]}
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.parent.name != "resume"]
    return {
        "checkpoint": str(checkpoint),
        "checkpoint_bytes": sum(path.stat().st_size for path in files),
        "trained_parameters": sum(math.prod(shape) for _, _, shape, _ in iterate_tensors(checkpoint)),
        "scores": {source: _source_summary(by_source[source]) for source in FOLDER_SUFFIXES},
    }


def _source_summary(result: dict[str, Any]) -> dict[str, Any]:
    scores = {name: round(result["scores"][name], 2) for name in ("bleu4", "chrf2", "context_bound_accuracy")}
    seconds = read_json(Path(result["file"]).parent / META_FILE)[SECONDS]
    return {**scores, "clips": result["clips"], "seconds": seconds}


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    rows = [
        [
            f"{stage}, {source} context",
            f"{scores['bleu4']:.1f}",
            f"{scores['chrf2']:.1f}",
            f"{scores['context_bound_accuracy']:.1f}",
            scores["clips"],
            f"{scores['seconds']:.0f} s",
            f"{stage_summary['trained_parameters']:,}",
            f"{stage_summary['checkpoint_bytes'] / 1e6:.1f} MB",
        ]
        for stage, stage_summary in summary["stages"].items()
        for source, scores in stage_summary["scores"].items()
    ]
    columns = ["stage", "BLEU-4", "chrF2", "context-bound %", "clips", "decoding", "trained", "checkpoint"]
    print_table(f"{summary['llm']}, {summary['seconds']:.0f} s in all", columns, rows)
    info(f"all output is in {out}, the scores in {out / 'summary.json'}")
