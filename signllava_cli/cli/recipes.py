"""`signllava recipes`: the recipes that come with the package."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import SetOption

app = typer.Typer(help="List, show, copy, validate and import recipes.", no_args_is_help=True)
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
    """Check a recipe; all errors are named at once."""
    from signllava_cli.recipe import read_recipe, require_stage

    read = read_recipe(recipe, set_ or [])
    require_stage(read, "finetune" if read.lora.enabled else "pretrain")
    typer.echo(f"{recipe}: no error")


@app.command("import")
def import_(
    old: Annotated[
        Path, typer.Argument(help="A YAML file of Sign_LLaVA: pretrain.yaml, finetune.yaml, generate.yaml.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The new recipe. Without it, the recipe is printed, the account in comments.")
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", min=1, help="How many GPUs the old run had; its batch is per GPU."),
    ] = None,
) -> None:
    """Turn a configuration of Sign_LLaVA into a recipe, and say for each of its keys what became of it."""
    from signllava_cli.console import info, print_table, warning
    from signllava_cli.errors import UserError
    from signllava_cli.files import write_text
    from signllava_cli.recipe.sign_llava_import import import_recipe

    if out is not None and out.exists():
        raise UserError(f"{out} is already there: choose another name.")
    imported = import_recipe(old, num_processes)
    if out is None:
        typer.echo(imported.to_yaml(), nl=False)
        return
    write_text(out, imported.to_yaml())
    known = [report for report in imported.reports if report.fate != "to decide"]
    open_ = [report for report in imported.reports if report.fate == "to decide"]
    print_table(str(old), ["key", "became", "in the recipe"], [[each.key, each.fate, each.note] for each in known])
    for report in open_:
        warning(f"{report.key}: {report.note}")
    info(f"recipe in {out}, with this account in its comments; {len(open_)} keys need a decision")
