"""Reads a recipe from a YAML file and `key=value` overrides; reports all of its errors at once."""

import json
import shlex
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError, summarize_names
from signllava_cli.recipe.consistency import error_report, find_contradictions, format_error
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.shipped import SEPARATOR, find_recipe_files
from signllava_cli.recipe.sign_llava_tables import sections_in
from signllava_cli.recipe.training_sections import Run

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

    `RECIPE+VARIANT` is the recipe with the settings of a variant; see `read_sections`.

    Raises:
        UserError: a file is missing or not YAML, or the recipe has errors; all errors are named at once.
    """
    files = find_recipe_files(path)
    source = str(path) if len(files) > 1 else str(files[0])
    return build_recipe(read_sections(path), overrides, source)


def read_sections(name: str | Path) -> dict[str, Any]:
    """The settings that a recipe file has, with those of its variants, as YAML holds them.

    The name of a variant is also appended to `run.output_dir` and, if it is set, to `init.projector`: a run of each
    combination has its own folder, and a finetune recipe starts from the pretrain run with the same variants.

    Raises:
        UserError: a file is missing, or is neither a recipe nor a variant.
    """
    recipe, *variants = find_recipe_files(name)
    config = _read_recipe_file(recipe)
    for file in variants:
        variant = read_yaml(file)
        if not isinstance(variant, dict):
            raise UserError(f"{file} is not a variant: it must contain sections such as `llm:` and `streams:`.")
        folders = _folders_with(config, SEPARATOR + file.name.removesuffix(".yaml"))
        config = _without_removed_streams(_merge(_merge(config, folders), variant))
    return config


def _read_recipe_file(file: Path) -> dict[str, Any]:
    config = read_yaml(file)
    if config is None:
        config = {}
    if sections := sections_in(config):
        raise UserError(
            f"{file} is a configuration of Sign_LLaVA ({summarize_names(sections)}): "
            f"`signllava recipes import {shlex.quote(str(file))} --out NEW.yaml` converts it to a recipe."
        )
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a recipe: it must contain sections such as `llm:` and `streams:`.")
    return config


def _folders_with(config: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """The run folders that `config` names, with `suffix`; what is not a text is left to the check of the recipe."""
    folders: dict[str, Any] = {}
    for section, key, default in (("run", "output_dir", Run.output_dir), ("init", "projector", None)):
        settings = config.get(section, {})
        folder = settings.get(key, default) if isinstance(settings, Mapping) else None
        if isinstance(folder, str):
            folders[section] = {key: folder.rstrip("/") + suffix}
    return folders


def _merge(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the values of `changes`, key by key in each section."""
    merged = dict(config)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


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
    config = _without_removed_streams(config)
    try:
        recipe = TypeAdapter(Recipe).validate_python(config)
    except ValidationError as invalid:
        raise error_report(source, [format_error(error) for error in invalid.errors()]) from None
    contradictions = find_contradictions(recipe)
    if contradictions:
        raise error_report(source, contradictions)
    return recipe


def _without_removed_streams(config: dict[str, Any]) -> dict[str, Any]:
    """`streams.mae: null` of a variant or of `--set` removes a stream."""
    streams = config.get("streams")
    if not isinstance(streams, dict):
        return config
    return config | {"streams": {name: stream for name, stream in streams.items() if stream is not None}}


def _deep_copy(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def format_override(key: str, value: Any) -> str:
    """The override that sets `key` to `value`, whatever characters it has; a path is written as text."""
    return f"{key}={json.dumps(value, default=str)}"


def _apply_override(override: str, config: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected key=value, such as --set train.learning_rate=1e-3")
    try:
        value = _join_surrogates(yaml.safe_load(text))
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


def _join_surrogates(value: Any) -> Any:
    """YAML reads the two escapes of a character beyond U+FFFF, as `format_override` writes it, as two characters."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [_join_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {key: _join_surrogates(each) for key, each in value.items()}
    return value
