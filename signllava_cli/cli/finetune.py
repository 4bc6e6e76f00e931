"""`signllava finetune`: train projectors and a LoRA adapter of the quantised LLM (QLoRA)."""

import json
from typing import Annotated

import typer

from signllava_cli.cli.options import LaunchOption, ProcessesOption, RecipeOption, ResumeOption, SetOption


def finetune(
    recipe: RecipeOption,
    projector: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Pretrained projector: a run, a checkpoint or a file (init.projector)."),
    ] = None,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    launch: LaunchOption = None,
    num_processes: ProcessesOption = None,
) -> None:
    """Train projectors and a LoRA adapter of the quantised LLM."""
    from signllava_cli.launch import run_stage
    from signllava_cli.recipe import read_recipe

    overrides = [*(set_ or []), *([f"init.projector={json.dumps(projector)}"] if projector else [])]
    run_stage("finetune", read_recipe(recipe, overrides), resume, launch, num_processes)
