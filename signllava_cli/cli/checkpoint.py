"""`signllava checkpoint`: look into a checkpoint, make one of a Sign_LLaVA file, merge its adapter, share it."""

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signllava_cli.cli.options import CheckpointArgument, SetOption

if TYPE_CHECKING:
    from signllava_cli.model.inspection import Inspection

app = typer.Typer(help="Look into checkpoints, convert, merge and push them.", no_args_is_help=True)


class Dtype(StrEnum):
    """What the weights of a merged LLM may be."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@app.command()
def inspect(
    checkpoint: CheckpointArgument,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as one JSON object.")] = False,
) -> None:
    """Print what a checkpoint holds: stage, LLM, streams, parameters, progress, versions."""
    from signllava_cli.console import info, print_table
    from signllava_cli.model.checkpoint import find_checkpoint
    from signllava_cli.model.inspection import inspect as look_into

    found = look_into(find_checkpoint(checkpoint))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    info(str(found.path), style="bold")
    for label, text in _lines(found):
        info(f"  {label:<9} {text}")
    rows = [[part.name, part.tensors, f"{part.parameters:,}", f"{part.size:,}"] for part in found.parts]
    totals = [sum(getattr(part, name) for part in found.parts) for name in ("tensors", "parameters", "size")]
    print_table("Parts", ["part", "tensors", "parameters", "bytes"], [*rows, ["all", *(f"{n:,}" for n in totals)]])
    if tensors:
        listed = [[it.name, it.dtype, " x ".join(map(str, it.shape)), f"{it.size:,}"] for it in found.tensors]
        print_table("Tensors", ["name", "dtype", "shape", "bytes"], listed)


def _lines(found: "Inspection") -> list[tuple[str, str]]:
    """The facts of one line each."""
    config, recipe, llm = found.config, found.recipe, found.config.llm
    links = f", {' and '.join(found.links)} of its run" if found.links else ""
    layouts = {name: f", layout {layout}" for name, layout in config.layouts.items()}
    streams = [
        f"{name} ({stream.width}, {stream.projector}{layouts.get(name, '')})"
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
        lines.append(("LoRA", f"r {lora.r}, alpha {lora.lora_alpha:g}, {', '.join(lora.target_modules)}"))
    return [
        *lines,
        ("data", config.data[:64]),
        ("progress", _progress(found)),
        ("resume", _resume(found)),
        ("weights", f"SHA-256 {found.weights}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())),
    ]


def _progress(found: "Inspection") -> str:
    state: dict[str, Any] = found.progress
    said = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.scores.items()]
    if state.get("best_step") is not None:
        said.append(
            f"best {found.recipe.train.metric_for_best_model.replace('_', ' ')} {state['best_score']:.4f} at {state['best_step']}"
        )
    said += [f"{state[name]:,} {name}" for name in ("clips", "targets") if name in state]
    if "seconds" in state:
        said.append(f"{state['seconds']:,.0f} s of training")
    return ", ".join(said) or "not known"


def _resume(found: "Inspection") -> str:
    if found.resume is None:
        return "no resume/: good for inference and init.projector, not for --resume"
    return "; ".join(
        f"{file.name}, {file.size:,} bytes"
        + ("" if file.tensors is None else f", {file.tensors} tensors")
        + ("" if file.damage is None else f", damaged: {file.damage}")
        for file in found.resume
    )


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="mp_rank_00_model_states.pt, another file of tensors, or the Trainer's checkpoint folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Gives what no tensor tells: LLM, prompts, context, data.")
    ] = "pretrain",
    streams: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Streams to convert, in this order. Default: the recipe's order."),
    ] = None,
    boundary_rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM=OPEN,CLOSE|none",
            help="Embedding rows that become a stream's boundary vectors; repeatable. Default: the research "
            "system's two markers, where the file holds them.",
        ),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Make a checkpoint of Sign_LLaVA one of ours. No code in its files is run."""
    from signllava_cli.model.conversion import BoundaryRows
    from signllava_cli.model.conversion import convert as convert_checkpoint
    from signllava_cli.recipe import read_recipe

    order = None if streams is None else [name.strip() for name in streams.split(",")]
    fresh, rows = _boundary_rows(boundary_rows or [])
    convert_checkpoint(source, read_recipe(recipe, set_ or []), out, order, BoundaryRows(rows, fresh))


def _boundary_rows(given: list[str]) -> tuple[bool, dict[str, tuple[int, int]]]:
    from signllava_cli.errors import UserError

    rows: dict[str, tuple[int, int]] = {}
    for text in given:
        found = re.fullmatch(r"([A-Za-z0-9_-]+)=(\d{1,9}),(\d{1,9})", text)
        if found:
            rows[found[1]] = (int(found[2]), int(found[3]))
        elif text != "none":
            raise UserError(
                f"--boundary-rows {text}: expected STREAM=OPEN,CLOSE, such as mae=128257,128258, or none."
            )
    return "none" in given, rows


@app.command()
def merge(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option(help="New folder: the LLM in OUT/llm, and the checkpoint that goes with it.")],
    dtype: Annotated[Dtype, typer.Option(help="Of the merged LLM.")] = Dtype.bfloat16,
    set_: SetOption = None,
) -> None:
    """Fold a finetune checkpoint's adapter into a 16- or 32-bit copy of its LLM."""
    from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
    from signllava_cli.model.merging import merge as merge_checkpoint

    found = find_checkpoint(checkpoint)
    merge_checkpoint(found, checkpoint_recipe(found, set_ or []), out, dtype.value)


@app.command()
def push(
    checkpoint: CheckpointArgument,
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="If the repository is new, make it private.")] = False,
    llm: Annotated[
        str | None, typer.Option(metavar="HUB_ID", help="Named as the LLM's place, instead of a path of yours.")
    ] = None,
) -> None:
    """Upload weights, config, recipe and a model card to the Hugging Face hub. The LLM and the data stay here."""
    from signllava_cli.api.hub import push_checkpoint
    from signllava_cli.console import info
    from signllava_cli.model.checkpoint import find_checkpoint

    info(f"uploaded to {push_checkpoint(find_checkpoint(checkpoint), repo_id, private, llm, token=None)}")
