"""Reads a recipe from a YAML file and `key=value` overrides; reports all of its errors at once."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError, summarize_names
from signllava_cli.recipe.consistency import error_report, find_contradictions, format_error
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.shipped import find_recipe
from signllava_cli.recipe.sign_llava_tables import sections_in

# What PyYAML raises besides its own errors: of `!!int abc`, `!!timestamp x`, `!!bool x`, `!!int ""`
YAML_ERRORS = (yaml.YAMLError, ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError)
MAX_YAML_BYTES = 1 << 18  # PyYAML reads some 100 kB a second


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, except that a duplicate key is an error instead of an overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        seen: set[Any] = set()
        for key in keys:
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key: {key}", node.start_mark)
            seen.update({key} if isinstance(key, Hashable) else ())
        return super().construct_mapping(node, deep)


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in the YAML file `path` (or shipped under that name), with `key=value` overrides applied.

    Raises:
        UserError: the file is missing or not YAML, or the recipe has errors; all errors are named at once.
    """
    file = find_recipe(path)
    config = read_yaml(file)
    if config is None:
        config = {}
    if sections := sections_in(config):
        raise UserError(
            f"{file} is a configuration of Sign_LLaVA ({summarize_names(sections)}): "
            f"`signllava recipes import {file} --out NEW.yaml` converts it to a recipe."
        )
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a recipe: it must contain sections such as `llm:` and `streams:`.")
    return build_recipe(config, overrides, source=str(file))


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, has a duplicate key, or is too large to be written by a person.
    """
    try:
        if (size := file.stat().st_size) > MAX_YAML_BYTES:
            raise UserError(f"{file} has {size:,} bytes, which is too large for a configuration; name another file.")
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except YAML_ERRORS as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None


def build_recipe(config: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "recipe") -> Recipe:
    """The recipe of a nested `config`, as YAML holds it, and `key=value` overrides.

    Raises:
        UserError: lists every error with its key and, for an unknown key, the nearest known one.
    """
    config = _deep_copy(config)
    for override in overrides:
        _apply_override(override, config)
    streams = config.get("streams")
    if isinstance(streams, dict):  # `--set streams.mae=null` removes a stream
        config["streams"] = {name: stream for name, stream in streams.items() if stream is not None}
    try:
        recipe = TypeAdapter(Recipe).validate_python(config)
    except ValidationError as invalid:
        raise error_report(source, [format_error(error) for error in invalid.errors()]) from None
    contradictions = find_contradictions(recipe)
    if contradictions:
        raise error_report(source, contradictions)
    return recipe


def _deep_copy(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def _apply_override(override: str, config: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected key=value, such as --set train.learning_rate=1e-3")
    try:
        value = yaml.safe_load(text)
    except YAML_ERRORS:
        raise UserError(f"--set {override}: the value is not YAML") from None
    *parents, last = key.strip().split(".")
    section = config
    for parent in parents:
        subsection = section.get(parent)
        if subsection is None:
            subsection = section[parent] = {}
        if not isinstance(subsection, dict):
            raise UserError(f"--set {override}: `{parent}` is a value, not a section")
        section = subsection
    section[last] = value
