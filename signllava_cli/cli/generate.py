"""`signllava generate`: translate a split."""

import json
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import SetOption


def generate(
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="A run (its best checkpoint) or a step folder.")
    ],
    context: Annotated[
        int | None, typer.Option(min=0, help="Context window N: the last N sentences. Default: the recipe's.")
    ] = None,
    prelude: Annotated[
        int | None, typer.Option(min=0, help="Prelude M: the first M sentences. Default: the recipe's.")
    ] = None,
    context_source: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="none, gold, predicted or prepared:FILE. Repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split to translate. Default: the recipe's.")] = None,
    beams: Annotated[int | None, typer.Option(min=1, help="Beam width; 1 is greedy. Default: the recipe's.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit, in tokens. Default: the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips decoded together. Default: the recipe's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the predictions. Default: below the run.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace predictions made with other settings.")] = False,
    set_: SetOption = None,
) -> None:
    """Translate a split, with no context, gold context, or the model's own predictions as context.

    Settings default to the recipe in the checkpoint. A killed run goes on where it stopped.
    """
    from signllava_cli.model.checkpoint import find_checkpoint, recipe_of

    options = {
        "context.window": context,
        "context.prelude": prelude,
        "generate.split": split,
        "generate.beams": beams,
        "generate.max_new_tokens": max_new_tokens,
        "generate.batch_size": batch_size,
    }
    overrides = [
        "context.least_window=null",  # training alone draws from a range
        "context.least_prelude=null",
        *(set_ or []),
        *(f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None),
    ]
    found = find_checkpoint(checkpoint)
    recipe = recipe_of(found, overrides)

    from signllava_cli.generation.generate import generate as translate

    translate(recipe, found, context_source or [recipe.generate.context_source], out, overwrite)
