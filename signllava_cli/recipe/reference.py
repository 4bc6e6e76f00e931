"""The settings of a recipe, explained for a reader (as text and as a page) and for an editor (as a JSON schema)."""

import textwrap
from typing import Any

import yaml
from pydantic import TypeAdapter

from signllava_cli.recipe.descriptions import Setting, find_sections, is_in_section, list_sections
from signllava_cli.recipe.sections import Recipe

SCHEMA_FILE = "signllava-recipe.schema.json"
_WIDTH = 118  # characters of a line on the screen and on the page
_PAGE_HEAD = """\
# Every setting of a recipe

<!-- Written by `signllava recipes explain --markdown` from the docstrings in signllava_cli/recipe/. -->

A [recipe](recipes.md) has the sections below. Every setting but the width of a stream has a default. `signllava
recipes explain KEY` prints the entry of one setting or section, `signllava recipes schema` a recipe's JSON schema.
"""


def explain(key: str | None = None) -> str:
    """The settings that `key` names, for the screen.

    Raises:
        UserError: the key is unknown.
    """
    blocks = []
    for section in find_sections(key):
        if key is None or is_in_section(section, key):
            blocks.append(f"{section.key}\n{_fill(section.description)}")
        for setting in section.settings:
            blocks.append(f"{setting.key}  ({describe_values(setting)})\n{_fill(setting.description, '    ')}")
    return "\n\n".join(blocks) + "\n"


def reference_page() -> str:
    """All settings as a page of Markdown, docs/recipe.md."""
    sections = list_sections()
    contents = "\n".join(
        f"- [`{section.key}`](#{_anchor(section.key)}): {section.summary.rstrip('.')}" for section in sections
    )
    blocks = [_PAGE_HEAD.rstrip(), contents]
    for section in sections:
        blocks += [f"## `{section.key}`", _fill(section.description)]
        for setting in section.settings:
            blocks += [f"### `{setting.key}`", f"*{describe_values(setting)}*", _fill(setting.description)]
    return "\n\n".join(blocks) + "\n"


def describe_values(setting: Setting) -> str:
    """The values and the default of a setting, such as `integer, at least 1; default 5`."""
    if setting.is_required:
        return f"{setting.values}; no default"
    return f"{setting.values}; default {format_value(setting.default)}"


def recipe_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a recipe file."""
    schema = TypeAdapter(Recipe).json_schema()
    streams = schema["properties"]["streams"]
    streams["additionalProperties"] = {
        "anyOf": [streams["additionalProperties"], {"type": "null"}]
    }  # null removes it
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "signllava recipe"}


def format_value(value: Any) -> str:
    """A value as YAML writes it in one line."""
    value = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _anchor(key: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return key.lower().replace(".", "")


def _fill(text: str, indent: str = "") -> str:
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return "\n\n".join(wrapper.fill(paragraph) for paragraph in text.split("\n\n"))
