"""`signllava recipes`: the recipes that come with the package."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_key, complete_recipe
from signllava_cli.cli.options import SetOption
from signllava_cli.cli.output_options import CommandGroup

app = CommandGroup(help="List, show, explain, copy, validate and import recipes.", no_args_is_help=True)
Name = Annotated[
    str,
    typer.Argument(
        autocompletion=complete_recipe, help="A recipe file, or the name of a shipped one; RECIPE+VARIANT."
    ),
]


@app.command("list")
def list_() -> None:
    """List the shipped recipes, and the variants that `RECIPE+VARIANT` applies to one."""
    from signllava_cli.console import is_json, print_document, print_line
    from signllava_cli.recipe import shipped_recipes, shipped_variants

    if is_json():
        print_document({"recipes": shipped_recipes(), "variants": shipped_variants()})
        return
    for name in (*shipped_recipes(), *(f"+{variant}" for variant in shipped_variants())):
        print_line(name)


@app.command()
def show(recipe: Name, set_: SetOption = None) -> None:
    """Print a recipe resolved: every setting, defaults and overrides included."""
    from signllava_cli.console import is_json, print_document
    from signllava_cli.recipe import read_recipe

    resolved = read_recipe(recipe, set_ or [])
    if is_json():
        print_document(resolved.to_dict())
    else:
        typer.echo(resolved.to_yaml(), nl=False)


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete_key,
            help="A setting (train.learning_rate), a section (train), or nothing for all.",
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/recipe.md.")] = False,
) -> None:
    """Print what a setting does: its values, default, effect, and the equivalent in other libraries."""
    from signllava_cli.console import print_text
    from signllava_cli.errors import UserError
    from signllava_cli.recipe import explain, reference_page

    if markdown and key is not None:
        raise UserError("--markdown prints all settings: omit KEY.")
    print_text(reference_page() if markdown else explain(key))


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, with which editors complete and check recipe files."""
    from signllava_cli.console import print_document
    from signllava_cli.recipe import recipe_schema

    print_document(recipe_schema())


@app.command()
def copy(recipe: Name, to: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Copy a recipe to a file of your own, with a comment on each setting; `slurm` is a folder of job scripts.

    The copy of `RECIPE+VARIANT` is one complete recipe. The JSON schema of a recipe is written beside it, for
    editors.
    """
    from signllava_cli.errors import UserError
    from signllava_cli.files import write_json, write_text
    from signllava_cli.recipe import (
        SCHEMA_FILE,
        comment_recipe,
        find_recipe_files,
        read_recipe,
        read_sections,
        recipe_schema,
        shipped_folder,
        write_sections,
    )

    if to.exists():
        raise UserError(f"{to} exists: choose another name.")
    if recipe == "slurm":
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(shipped_folder("recipes") / recipe, to)
        return
    read_recipe(recipe)  # a file with errors is not copied
    file, *variants = find_recipe_files(recipe)
    text = write_sections(read_sections(recipe), recipe) if variants else file.read_text(encoding="utf-8")
    text = comment_recipe(text, SCHEMA_FILE)
    write_json(to.parent / SCHEMA_FILE, recipe_schema())
    write_text(to, text)


@app.command()
def validate(recipe: Name, set_: SetOption = None) -> None:
    """Check a recipe; all errors are reported at once."""
    from signllava_cli.console import print_line
    from signllava_cli.recipe import read_recipe, require_stage

    resolved = read_recipe(recipe, set_ or [])
    require_stage(resolved, "finetune" if resolved.lora.enabled else "pretrain")
    print_line(f"{recipe}: no error")


@app.command("import")
def import_(
    config: Annotated[
        Path, typer.Argument(help="A YAML file of Sign_LLaVA: pretrain.yaml, finetune.yaml, generate.yaml.")
    ],
    out: Annotated[Path | None, typer.Option(help="The new recipe. Default: print it.")] = None,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", min=1, help="GPUs of the old run, whose batch size is per GPU."),
    ] = None,
) -> None:
    """Convert a configuration of Sign_LLaVA to a recipe, and report what became of each of its keys."""
    from signllava_cli.console import info, print_table, print_text, warning
    from signllava_cli.errors import UserError, format_count
    from signllava_cli.files import write_text
    from signllava_cli.recipe.sign_llava_import import import_recipe

    if out is not None and out.exists():
        raise UserError(f"{out} exists: choose another name.")
    imported = import_recipe(config, num_processes)
    if out is None:
        print_text(imported.to_yaml())
        return
    write_text(out, imported.to_yaml())
    decided = [report for report in imported.reports if report.outcome != "to decide"]
    undecided = [report for report in imported.reports if report.outcome == "to decide"]
    print_table(
        str(config),
        ["key", "outcome", "in the recipe"],
        [[report.key, report.outcome, report.note] for report in decided],
    )
    for report in undecided:
        warning(f"{report.key}: {report.note}")
    num_undecided = format_count(len(undecided), "key needs", "keys need")
    info(f"recipe in {out}, with these reports in its comments; {num_undecided} a decision")
