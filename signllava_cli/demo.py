"""The demos: all steps on the toy corpus, or on videos, each run as the command that a user would type."""

import math
import shlex
import time
from pathlib import Path
from typing import Any

from signllava_cli.console import info, print_table
from signllava_cli.data.annotations import annotation_file
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_json, write_json
from signllava_cli.generation.predictions_folder import META_FILE, SECONDS, find_predictions, read_predictions
from signllava_cli.model.checkpoint import find_checkpoint, iterate_tensors
from signllava_cli.prepare.importers.csv_table import SEPARATORS
from signllava_cli.prepare.importers.table_reader import read_table
from signllava_cli.processes import repeat_option, run_signllava
from signllava_cli.recipe import format_override

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
        options = repeat_option("--set", _path_settings(llm_folder, corpus, run))
        if stage == "finetune":
            options = ["--projector", str(out / llm / "pretrain"), *options]
        signllava(stage, "--recipe", RECIPES[llm].format(stage=stage), *options)
        sources = repeat_option("--context-source", FOLDER_SUFFIXES)
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


def run_video_demo(folder: Path, llm: str, out: Path, pose_model: Path | None) -> dict[str, Any]:
    """Go from the videos in `folder`, with one table of their sentences, to scores, in `out`/video.

    The table has the columns `uid` (the name of a clip) and `translation`; `recording`, `start`, `end` and `split`
    are used if it has them. Without a split, the clips that were trained on are translated.

    Returns:
        The summary, which is also written: the split, its scores, and (clip, reference, hypothesis) of each clip.

    Raises:
        UserError: there is no such table, or a command failed.
        RunStopped: a signal arrived; the running command has saved its state.
    """
    out = out / "video"
    data, llm_folder, run = out / "data", out / "llm" / llm, out / llm
    table, commands = _find_table(folder), list[str]()

    def signllava(*words: str | Path) -> None:
        _run_command([str(word) for word in words], commands)

    if not annotation_file(data, "train").is_file():
        signllava("prepare", "csv", "--annotations", table, "--out", data, *_table_options(table))
    splits = [split for split in ("train", "dev", "test") if annotation_file(data, split).is_file()]
    model_options = () if pose_model is None else ("--pose-model", pose_model)
    for split in splits:
        signllava("prepare", "extract", folder, "--out", data, "--split", split, "--streams", "pose", *model_options)
    if not (llm_folder / "config.json").is_file():
        signllava("prepare", "llm", llm, "--out", llm_folder, *(("--corpus", data) if llm == "tiny" else ()))
    settings = [*_path_settings(llm_folder, data, run), "data.missing=skip", "streams={pose: {width: 208}}"]
    settings.append(f"data.dev={splits[min(1, len(splits) - 1)]}")
    recipe = RECIPES[llm].format(stage="pretrain")
    signllava("pretrain", "--recipe", recipe, *repeat_option("--set", settings))
    signllava("generate", "--checkpoint", run, "--split", splits[-1], "--context-source", "none")
    predictions = run / "predictions" / f"{find_checkpoint(run).name}.{splits[-1]}.none"
    signllava("eval", predictions, "--out", run / "scores.json")
    [result] = read_json(run / "scores.json")["results"]
    rows = read_predictions(find_predictions(predictions))
    clips = [(row.clip, row.reference, row.hypothesis) for row in rows]
    summary = {"split": splits[-1], "scores": result["scores"], "clips": clips}
    write_json(out / "summary.json", summary)
    print_table(
        f"split {splits[-1]}, BLEU-4 {result['scores']['bleu4']:.1f}", ["clip", "sentence", "translated"], clips
    )
    if splits == ["train"]:
        info("The table has no column `split`: these clips were trained on, so the scores only show that all works.")
    info("These commands ran; each can be repeated by hand. The last one opens a page that translates videos:")
    serve = ["signllava", "serve", "--checkpoint", run, "--videos", folder, *model_options]
    for command in (*commands, shlex.join(map(str, serve))):
        info(f"  {command}")
    return summary


def _path_settings(llm: Path, data: Path, run: Path) -> list[str]:
    paths = {"llm.path": llm, "data.root": data, "run.output_dir": run}
    return [format_override(*setting) for setting in paths.items()]


def _find_table(folder: Path) -> Path:
    tables = sorted(file for suffix in (".csv", ".tsv") for file in folder.glob(f"*{suffix}"))
    if len(tables) != 1:
        found = summarize_names([table.name for table in tables]) or "none"
        raise UserError(
            f"--video {folder}: expected a folder of videos with one table of their sentences (.csv or .tsv, columns "
            f"`uid` and `translation`); tables found: {found}."
        )
    return tables[0]


def _table_options(table: Path) -> list[str]:
    """The options of `prepare csv` for the columns of `table`."""
    columns = read_table(table, SEPARATORS).columns
    options = [word for name in ("recording", "start", "end") if name in columns for word in (f"--{name}", name)]
    return [*options, *(("--split-column", "split") if "split" in columns else ("--split", "train"))]


def _run_command(words: list[str], commands: list[str]) -> None:
    commands.append(shlex.join(["signllava", *words]))
    run_signllava(words, RESUME_HINT)


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
