"""`signllava prepare index`."""

from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.options import DatasetArgument, SplitsOption


def index(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            autocompletion=complete_recipe,
            help="Index this recipe's streams. Default: all in the folder.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of CPU cores.")
    ] = None,
) -> None:
    """Index a dataset, so that training starts at once. Training indexes a dataset without an index."""
    from signllava_cli.console import is_json, print_document, print_line
    from signllava_cli.errors import format_count
    from signllava_cli.prepare.dataset_folder import list_splits, list_streams
    from signllava_cli.prepare.indexing import open_index
    from signllava_cli.recipe import read_recipe

    indexed = {}
    for split in splits or list_splits(data):
        streams = read_recipe(recipe).streams if recipe else list_streams(data, split)
        opened_index = open_index(data, split, streams, workers)
        indexed[split] = {
            "clips": len(opened_index),
            "streams": list(opened_index.streams),
            "file": str(opened_index.file),
        }
        if is_json():
            continue
        names = f"streams {', '.join(opened_index.streams)}" if opened_index.streams else "no streams"
        print_line(f"split {split}: {format_count(len(opened_index), 'clip')}, {names}: {opened_index.file}")
    if is_json():
        print_document(indexed)
