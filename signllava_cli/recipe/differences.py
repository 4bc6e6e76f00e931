"""What a recipe has otherwise than the shipped recipe that it derives from."""

import json
from pathlib import Path
from typing import Any

from signllava_cli.recipe.model_sections import Stream
from signllava_cli.recipe.reading import read_recipe
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.shipped import find_recipe, shipped_folder, shipped_recipes


def recipe_differences(recipe: Recipe, source: str | Path | None = None) -> tuple[str, list[str]]:
    """The shipped recipe that `recipe` derives from, and each difference as `KEY: VALUE (SHIPPED VALUE)`.

    That is the one which `source`, the file or name that it was read from, names; else the one with the fewest
    differences.
    """
    files = {name: shipped_folder("recipes") / f"{name}.yaml" for name in shipped_recipes()}
    named = [name for name, file in files.items() if source is not None and find_recipe(source).samefile(file)]
    found = {name: _differences(recipe, read_recipe(files[name])) for name in named or files}
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def _differences(recipe: Recipe, shipped: Recipe) -> list[str]:
    removed = [f"streams.{name}: removed" for name in shipped.streams.keys() - recipe.streams.keys()]
    added = [
        f"streams.{name}: {_text(_chosen(recipe.streams[name]))} (not there)"
        for name in recipe.streams.keys() - shipped.streams.keys()
    ]
    ours, theirs = (_without_streams(each, recipe, shipped) for each in (recipe, shipped))
    changed = [
        f"{key}: {_text(ours.get(key))} ({_text(theirs.get(key))})"
        for key in ours.keys() | theirs.keys()
        if ours.get(key) != theirs.get(key)
    ]
    return sorted([*removed, *added, *changed])


def _without_streams(each: Recipe, recipe: Recipe, shipped: Recipe) -> dict[str, Any]:
    """The settings of `each` by their whole keys, without streams that only one of the two recipes has."""
    single = tuple(f"streams.{name}." for name in recipe.streams.keys() ^ shipped.streams.keys())
    return {key: value for key, value in each.to_flat_dict().items() if not key.startswith(single)}


def _chosen(stream: Stream) -> dict[str, Any]:
    """The width, and what is not the default."""
    return {key: value for key, value in vars(stream).items() if value != getattr(Stream, key, None)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
