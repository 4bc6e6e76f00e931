"""`signllava checkpoint`: inspect, convert, merge, push and pull checkpoints."""

import re
import shlex
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.options import CheckpointArgument, PrivateOption, RepoArgument, RevisionOption, SetOption
from signllava_cli.cli.output_options import CommandGroup

if TYPE_CHECKING:
    from signllava_cli.model.inspection import Inspection

app = CommandGroup(help="Inspect, convert, merge, push and pull checkpoints.", no_args_is_help=True)


class Dtype(StrEnum):
    """The dtypes of a merged LLM."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@app.command()
def inspect(
    checkpoint: CheckpointArgument,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
) -> None:
    """Print the contents of a checkpoint: stage, LLM, streams, parameters, progress, versions."""
    from signllava_cli.console import is_json, print_document, print_line, print_table
    from signllava_cli.model.checkpoint import find_checkpoint
    from signllava_cli.model.inspection import inspect as inspect_checkpoint

    inspection = inspect_checkpoint(find_checkpoint(checkpoint))
    if is_json():
        print_document(inspection.to_dict())
        return
    print_line(str(inspection.path), style="bold")
    for label, text in _summary(inspection):
        print_line(f"  {label:<9} {text}")
    rows = [[part.name, part.tensors, f"{part.parameters:,}", f"{part.size:,}"] for part in inspection.parts]
    totals = [sum(getattr(part, name) for part in inspection.parts) for name in ("tensors", "parameters", "size")]
    print_table("Parts", ["part", "tensors", "parameters", "bytes"], [*rows, ["all", *(f"{n:,}" for n in totals)]])
    if tensors:
        tensor_rows = [
            [tensor.name, tensor.dtype, " x ".join(map(str, tensor.shape)), f"{tensor.size:,}"]
            for tensor in inspection.tensors
        ]
        print_table("Tensors", ["name", "dtype", "shape", "bytes"], tensor_rows)


def _summary(inspection: "Inspection") -> list[tuple[str, str]]:
    """Label and text of each line."""
    config, recipe, llm = inspection.config, inspection.recipe, inspection.config.llm
    links = f", {' and '.join(inspection.links)} of its run" if inspection.links else ""
    layouts = {name: f", layout {layout}" for name, layout in config.layouts.items()}
    streams = [
        f"{name} ({stream.width}, {stream.architecture}{layouts.get(name, '')})"
        for name, stream in recipe.streams.items()
    ]
    context, lora = recipe.context, recipe.lora
    lines = [
        ("stage", f"{config.stage}, step {config.step}{links}"),
        ("LLM", f"{llm['path']}" + (f" at {llm['revision']}" if llm.get("revision") else "")),
        (
            "",
            f"{llm['model_type']}, {llm['layers']} layers, hidden size {llm['hidden_size']}, "
            f"{llm['vocabulary']:,} tokens, in {recipe.llm.bits} bits, {recipe.llm.dtype}",
        ),
        ("streams", ", ".join(streams)),
        ("context", ", ".join(f"{key} {value}" for key, value in vars(context).items() if value is not None)),
    ]
    if lora.enabled:
        modules = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
        targets = ", ".join([*modules, *lora.target_parameters])
        lines.append(("LoRA", f"r {lora.r}, alpha {lora.lora_alpha:g}, {targets}"))
    return [
        *lines,
        ("data", config.data[:64]),
        ("progress", _progress(inspection)),
        ("resume", _resume(inspection)),
        ("weights", f"SHA-256 {inspection.weights}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())),
    ]


def _progress(inspection: "Inspection") -> str:
    state: dict[str, Any] = inspection.progress
    metric = inspection.recipe.train.metric_for_best_model.replace("_", " ")
    texts = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in inspection.scores.items()]
    if state.get("best_step") is not None:
        texts.append(f"best {metric} {state['best_score']:.4f} at {state['best_step']}")
    texts += [f"{state[name]:,} {name}" for name in ("clips", "targets") if name in state]
    if "seconds" in state:
        texts.append(f"{state['seconds']:,.0f} s of training")
    return ", ".join(texts) or "unknown"


def _resume(inspection: "Inspection") -> str:
    from signllava_cli.errors import format_count

    if inspection.resume is None:
        return "no resume/: usable for inference and init.projector, not for --resume"
    return "; ".join(
        f"{file.name}, {file.size:,} bytes"
        + ("" if file.tensors is None else f", {format_count(file.tensors, 'tensor')}")
        + ("" if file.damage is None else f", damaged: {file.damage}")
        for file in inspection.resume
    )


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="mp_rank_00_model_states.pt, another file of tensors, or a checkpoint folder of the Trainer."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            autocompletion=complete_recipe,
            help="For what the tensors do not contain: LLM, prompts, context, data.",
        ),
    ] = "pretrain",
    streams: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Streams to convert, in this order. Default: the recipe's order."),
    ] = None,
    boundary_rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM=START,END|none",
            help="Embedding rows that become a stream's boundary vectors; repeatable. Default: the two markers of "
            "Sign_LLaVA, if the file has them.",
        ),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Convert a Sign_LLaVA checkpoint. No code in its files is run."""
    from signllava_cli.model.conversion import BoundaryRows
    from signllava_cli.model.conversion import convert as convert_checkpoint
    from signllava_cli.recipe import read_recipe

    order = None if streams is None else [name.strip() for name in streams.split(",")]
    ignore_markers, rows = _parse_boundary_rows(boundary_rows or [])
    convert_checkpoint(source, read_recipe(recipe, set_ or []), out, order, BoundaryRows(rows, ignore_markers))


def _parse_boundary_rows(options: list[str]) -> tuple[bool, dict[str, tuple[int, int]]]:
    """Whether `none` is among the options, and stream -> rows of its start and end vectors."""
    from signllava_cli.errors import UserError

    rows: dict[str, tuple[int, int]] = {}
    for text in options:
        match = re.fullmatch(r"([A-Za-z0-9_-]+)=(\d{1,9}),(\d{1,9})", text)
        if match:
            rows[match[1]] = (int(match[2]), int(match[3]))
        elif text != "none":
            raise UserError(f"--boundary-rows {text}: expected STREAM=START,END, such as mae=128257,128258, or none.")
    return "none" in options, rows


@app.command()
def merge(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option(help="New folder for the LLM, OUT/llm, and its checkpoint.")],
    dtype: Annotated[Dtype, typer.Option(help="Of the merged LLM.")] = Dtype.bfloat16,
    set_: SetOption = None,
) -> None:
    """Merge the adapter of a finetune checkpoint into a 16- or 32-bit copy of its LLM."""
    from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
    from signllava_cli.model.merging import merge as merge_checkpoint

    folder = find_checkpoint(checkpoint)
    merge_checkpoint(folder, checkpoint_recipe(folder, set_ or []), out, dtype.value)


@app.command()
def push(
    checkpoint: CheckpointArgument,
    repo_id: RepoArgument,
    private: PrivateOption = False,
    llm: Annotated[
        str | None, typer.Option(metavar="HUB_ID", help="Hub id of the LLM, written in place of a local path.")
    ] = None,
) -> None:
    """Upload weights, config, recipe and a model card to the Hugging Face hub, but neither the LLM nor the data."""
    from signllava_cli.api.hub import push_checkpoint
    from signllava_cli.console import info, is_json, print_document
    from signllava_cli.model.checkpoint import find_checkpoint

    url = push_checkpoint(find_checkpoint(checkpoint), repo_id, private, llm, token=None)
    info(f"uploaded to {url}")
    if is_json():
        print_document({"repo_id": repo_id, "url": url})


@app.command()
def pull(
    repo_id: RepoArgument,
    out: Annotated[Path, typer.Option(help="The folder of the checkpoint.")],
    revision: RevisionOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of another checkpoint in the folder.")
    ] = False,
) -> None:
    """Download a checkpoint from the Hugging Face hub, and check it. After a kill, run it again to continue."""
    from signllava_cli.api.hub import pull_checkpoint
    from signllava_cli.cli.pulled_files import print_pulled_files
    from signllava_cli.console import info, is_json, print_document

    pulled = pull_checkpoint(repo_id, out, revision, overwrite)
    print_pulled_files(pulled)
    info(f"checkpoint in {out}; `signllava checkpoint inspect {shlex.quote(str(out))}` prints its contents")
    if is_json():
        print_document(asdict(pulled))
