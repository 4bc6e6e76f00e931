"""`signllava prepare index`."""

from typing import Annotated

import typer

from signllava_cli.cli.options import DatasetArgument, SplitsOption


def index(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Index this recipe's streams. Default: all that are there.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU core.")] = None,
) -> None:
    """Index a dataset, so that training opens it at once. Training does it itself where it was not done."""
    from signllava_cli.prepare.dataset_folder import list_splits, list_streams
    from signllava_cli.prepare.indexing import open_index
    from signllava_cli.recipe import read_recipe

    for split in splits or list_splits(data):
        streams = read_recipe(recipe).streams if recipe else list_streams(data, split)
        found = open_index(data, split, streams, workers)
        of = f"streams {', '.join(found.streams)}" if found.streams else "no streams"
        typer.echo(f"split {split}: {len(found)} clips, {of}: {found.file}")
