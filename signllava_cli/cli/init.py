"""`signllava init`: a recipe for the dataset, the LLM and the GPU at hand."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from signllava_cli.recipe.setting_types import Stage

if TYPE_CHECKING:
    from signllava_cli.training.new_recipe import NewRecipe

CPU = "cpu"


def init(
    out: Annotated[Path, typer.Argument(help="The new recipe.")] = Path("my_recipe.yaml"),
    data: Annotated[Path | None, typer.Option(help="The dataset folder.")] = None,
    llm: Annotated[str | None, typer.Option(help="Folder or hub id of the LLM.")] = None,
    stage: Annotated[Stage | None, typer.Option(help="What is trained.")] = None,
    streams: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Streams in their order. Default: all of the dataset.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|SIZE|cpu",
            help="The GPU, such as h100-80gb or 24GiB. Default: that of this machine.",
        ),
    ] = None,
    projector: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of finetune: the run whose projectors it starts from.")
    ] = None,
) -> None:
    """Write a recipe for the data at hand: streams, widths and splits found, batches that fit into the GPU.

    Five questions on a terminal, for what no option names.
    """
    from signllava_cli.console import info
    from signllava_cli.errors import UserError

    if out.exists():
        raise UserError(f"{out} exists: choose another name.")
    root = (data or Path(_ask("--data", "Dataset folder"))).expanduser()
    llm = llm or _ask("--llm", "LLM, a folder or a hub id", "meta-llama/Meta-Llama-3-8B-Instruct")
    stage = stage or _ask_stage()
    if stage == "finetune" and projector is None:
        projector = _ask("--projector", "Run whose projectors it starts from", "runs/pretrain")
    streams = _ask_streams(root) if streams is None else streams
    gpu = gpu or _ask("--gpu", "GPU", _own_gpu())
    from signllava_cli.files import write_text
    from signllava_cli.model.gpus import find_gpu
    from signllava_cli.training.new_recipe import RecipeRequest, make_recipe

    request = RecipeRequest(
        root=root,
        llm=llm,
        stage=stage,
        gpu=None if gpu == CPU else find_gpu(gpu),
        file=out,
        streams=tuple(name.strip() for name in streams.split(",") if name.strip()),
        projector=projector,
    )
    new = make_recipe(request)
    write_text(out, new.text)
    info(f"recipe in {out}: {_describe(new)}")
    if new.estimate is None and gpu != CPU:
        info(f"the config of {llm} is not on this machine: check the batches with `--estimate` when it is")
    if new.shipped_command:
        info(f"a shipped recipe has these streams too: {shlex.join(new.shipped_command)}")
    info("next:")
    for command in (
        ["prepare", "check", root, "--recipe", out],
        [stage, "--recipe", out, "--dry-run"],
        [stage, "--recipe", out],
    ):
        info(f"  {shlex.join(['signllava', *map(str, command)])}")


def _describe(new: "NewRecipe") -> str:
    """The streams, the splits and the hours, in words."""
    from signllava_cli.errors import format_count

    streams = ", ".join(f"{name} ({stream.width})" for name, stream in new.recipe.streams.items())
    splits = ", ".join(f"{name} {format_count(size, 'clip')}" for name, size in new.splits.items())
    estimate = new.estimate
    hours = f"; about {estimate.hours:.1f} hours on {estimate.gpu}" if estimate and estimate.hours else ""
    return f"streams {streams}; splits {splits}{hours}"


def _ask(option: str, question: str, default: str | None = None) -> str:
    """The answer to a question on a terminal; elsewhere the default.

    Raises:
        UserError: there is no terminal and no default.
    """
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default))
    if default is None:
        from signllava_cli.errors import UserError

        raise UserError(f"{option} is missing, and there is no terminal to ask on.")
    return default


def _ask_stage() -> Stage:
    """The stage; pretrain without a terminal.

    Raises:
        UserError: the answer is another word.
    """
    answer = _ask("--stage", "Stage, pretrain or finetune", "pretrain")
    for stage in get_args(Stage):
        if answer == stage:
            return stage
    from signllava_cli.errors import UserError

    raise UserError(f"--stage {answer}: expected {' or '.join(get_args(Stage))}.")


def _ask_streams(root: Path) -> str:
    from signllava_cli.prepare.dataset_folder import list_splits, list_streams

    return _ask("--streams", "Streams, in their order", ",".join(list_streams(root, list_splits(root)[0])))


def _own_gpu() -> str:
    """The memory of the GPU of this machine, or `cpu`."""
    import torch

    if not torch.cuda.is_available():
        return CPU
    return f"{torch.cuda.get_device_properties(0).total_memory // 2**20}MiB"
