"""`signllava recipes`: the recipes that come with the package."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import SetOption

app = typer.Typer(help="List, show, explain, copy, validate and import recipes.", no_args_is_help=True)
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
def explain(
    key: Annotated[
        str | None, typer.Argument(help="A setting (train.learning_rate), a section (train), or nothing for all.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/recipe.md.")] = False,
) -> None:
    """Print what a setting does: its values, default, effect, and the equivalent in other libraries."""
    from signllava_cli.errors import UserError
    from signllava_cli.recipe import explain, reference_page

    if markdown and key is not None:
        raise UserError("--markdown prints all settings: leave out the key.")
    typer.echo(reference_page() if markdown else explain(key), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, with which editors complete and check recipe files."""
    from signllava_cli.recipe import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


@app.command()
def copy(recipe: Name, to: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Copy a recipe to a file of your own, with a comment on each setting; `slurm` is a folder of job scripts.

    The JSON schema of a recipe is written beside it, for editors.
    """
    from signllava_cli.errors import UserError
    from signllava_cli.files import write_json, write_text
    from signllava_cli.recipe import (
        SCHEMA_FILE,
        comment_recipe,
        find_recipe,
        read_recipe,
        recipe_schema,
        shipped_folder,
    )

    if to.exists():
        raise UserError(f"{to} is already there: choose another name.")
    if recipe == "slurm":
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(shipped_folder("recipes") / recipe, to)
        return
    read_recipe(recipe)  # a file with errors is not copied
    text = comment_recipe(find_recipe(recipe).read_text(encoding="utf-8"), SCHEMA_FILE)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_json(to.parent / SCHEMA_FILE, recipe_schema())
    write_text(to, text)


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
