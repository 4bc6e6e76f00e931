"""A recipe file with the description of each setting in comments, and a line that names its JSON schema."""

from collections.abc import Mapping
from typing import Any

import yaml

from signllava_cli.errors import escape_unprintable
from signllava_cli.recipe.descriptions import first_sentence, general_key, list_sections, settings_by_key

SCHEMA_LINE = "# yaml-language-server: $schema="


def comment_recipe(text: str, schema: str) -> str:
    """The recipe file `text` with a comment above each key that stands on a line of its own.

    A key inside `{...}` is described above the line, by its name; a setting is described once, where it stands first.
    Comments of the file stay, except those that an earlier copy wrote.

    Args:
        schema: path of the JSON schema, absolute or relative to the file.
    """
    text = _without_own_comments(text.removeprefix("\ufeff"))
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    comments: list[tuple[int, str]] = []  # (start of the line, comment lines)
    described: set[str] = set()
    if isinstance(root, yaml.MappingNode) and not root.flow_style:
        _collect(root, "", described, comments)
    for start, lines in reversed(comments):
        text = text[:start] + lines + text[start:]
    return f"{SCHEMA_LINE}{schema}\n{text}"


def write_sections(sections: Mapping[str, Any], title: str) -> str:
    """The text of a recipe file with these `sections`, which begins with `title` as a comment."""
    text = yaml.safe_dump(dict(sections), sort_keys=False, allow_unicode=True, width=100)
    return f"# {escape_unprintable(title)}\n\n{text}"


def _collect(mapping: yaml.MappingNode, prefix: str, described: set[str], comments: list[tuple[int, str]]) -> None:
    for key_node, value_node in mapping.value:
        mark, key = key_node.start_mark, general_key(prefix + str(key_node.value))
        descriptions = [_description(key, described)]
        if isinstance(value_node, yaml.MappingNode) and value_node.flow_style:
            descriptions += [
                f"{name}: {description}"
                for name in (str(node.value) for node, _ in value_node.value)
                if (description := _description(f"{key}.{name}", described))
            ]
        lines = [f"{' ' * mark.column}# {description}\n" for description in descriptions if description]
        if lines:
            comments.append((mark.index - mark.column, "".join(lines)))
        if isinstance(value_node, yaml.MappingNode) and not value_node.flow_style:
            _collect(value_node, f"{prefix}{key_node.value}.", described, comments)


def _description(key: str, described: set[str]) -> str | None:
    """The first sentence of what `key` is, unless it was described before."""
    if key in described:
        return None
    described.add(key)
    return _summaries().get(key)


def _summaries() -> dict[str, str]:
    """The first sentence about each section and setting."""
    summaries = {key: setting.summary for key, setting in settings_by_key().items()}
    return summaries | {section.key: first_sentence(section.description) for section in list_sections()}


def _without_own_comments(text: str) -> str:
    """The text without the lines that `comment_recipe` writes."""
    summaries = _summaries()
    own = {f"# {summary}" for summary in summaries.values()}
    own |= {f"# {key.rpartition('.')[2]}: {summary}" for key, summary in summaries.items()}
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.strip() not in own and not line.startswith(SCHEMA_LINE)
    )
