"""The differences between a recipe and the shipped recipe that it derives from."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from signllava_cli.recipe.model_sections import Stream
from signllava_cli.recipe.reading import read_recipe
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.shipped import find_recipe_files, shipped_folder, shipped_recipes


def recipe_differences(recipe: Recipe, source: str | Path | None = None) -> tuple[str, list[str]]:
    """The shipped recipe that `recipe` derives from, and each difference as `KEY: VALUE (SHIPPED VALUE)`.

    It is the one that `source`, the file or name that the recipe was read from, names; if it names none, the one with
    the fewest differences.
    """
    files = {name: shipped_folder("recipes") / f"{name}.yaml" for name in shipped_recipes()}
    named = [
        name for name, file in files.items() if source is not None and find_recipe_files(source)[0].samefile(file)
    ]
    differences = {name: _differences(recipe, read_recipe(files[name])) for name in named or files}
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def _differences(recipe: Recipe, shipped: Recipe) -> list[str]:
    removed = [f"streams.{name}: removed" for name in shipped.streams.keys() - recipe.streams.keys()]
    added = [
        f"streams.{name}: {_text(_changed_settings(recipe.streams[name]))} (new)"
        for name in recipe.streams.keys() - shipped.streams.keys()
    ]
    values, shipped_values = (_common_settings(side, recipe, shipped) for side in (recipe, shipped))
    changed = [
        f"{key}: {_text(values.get(key))} ({_text(shipped_values.get(key))})"
        for key in values.keys() | shipped_values.keys()
        if values.get(key) != shipped_values.get(key)
    ]
    return sorted([*removed, *added, *changed])


def _common_settings(side: Recipe, recipe: Recipe, shipped: Recipe) -> dict[str, Any]:
    """The settings of `side`, one of the two recipes, by whole key, without streams that only one of them has."""
    prefixes = tuple(f"streams.{name}." for name in recipe.streams.keys() ^ shipped.streams.keys())
    return {key: value for key, value in side.to_flat_dict().items() if not key.startswith(prefixes)}


def _changed_settings(stream: Stream) -> dict[str, Any]:
    """The width, and the settings that differ from their defaults."""
    return {key: value for key, value in asdict(stream).items() if value != getattr(Stream, key, None)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
