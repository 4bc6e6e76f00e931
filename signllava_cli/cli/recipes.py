"""`signllava recipes`: the recipes that come with the package."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import SetOption

app = typer.Typer(help="List, show, copy and validate recipes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")]


@app.command("list")
def list_() -> None:
    """List the shipped recipes."""
    from signllava_cli.recipe import shipped_recipes

    for name in shipped_recipes():
        typer.echo(name)


@app.command()
def show(recipe: Name, set_: SetOption = None) -> None:
    """Print a recipe resolved: every setting, defaults and overrides included."""
    from signllava_cli.recipe import read_recipe

    typer.echo(read_recipe(recipe, set_ or []).to_yaml(), nl=False)


@app.command()
def copy(recipe: Name, to: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Copy a recipe, comments and all, to a file of your own; `slurm` is a folder of job scripts."""
    from signllava_cli.errors import UserError
    from signllava_cli.recipe import find_recipe, shipped_folder

    if to.exists():
        raise UserError(f"{to} is already there: choose another name.")
    to.parent.mkdir(parents=True, exist_ok=True)
    if recipe == "slurm":
        shutil.copytree(shipped_folder("recipes") / recipe, to)
    else:
        shutil.copyfile(find_recipe(recipe), to)


@app.command()
def validate(recipe: Name, set_: SetOption = None) -> None:
    """Check a recipe; all faults are named at once."""
    from signllava_cli.recipe import read_recipe, require_stage

    read = read_recipe(recipe, set_ or [])
    require_stage(read, "finetune" if read.lora.enabled else "pretrain")
    typer.echo(f"{recipe}: no fault")
