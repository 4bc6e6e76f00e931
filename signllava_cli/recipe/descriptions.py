"""What each setting of a recipe is: key, values, default and description, read from the fields of the sections."""

import dataclasses
import difflib
import itertools
import types
from collections.abc import Callable, Iterable
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from signllava_cli.errors import UserError
from signllava_cli.recipe.sections import Recipe

STREAM_NAME = "NAME"  # stands for a stream's name in keys
_NAMED_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
SANITY_BOUND = 1e6  # bounds from here on only catch typing errors
_TYPE_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    list: "list of texts",
    tuple: "list of two numbers",
    dict: "mapping",
}


@dataclasses.dataclass(frozen=True)
class ValueType:
    """The values that a setting takes.

    Attributes:
        base: int, float, str, bool, list, tuple or dict; for choices, the type of the first one.
        choices: the values, if only these are allowed; of a list, those of its items.
        bounds: among `ge`, `gt`, `le`, `lt`; those of integers have `ge` instead of `gt`.
        pattern: the regular expression that a text must match.
        is_optional: whether null is allowed.
        keywords: texts that are allowed instead of a value of `base`.
    """

    base: type
    choices: tuple[Any, ...] = ()
    bounds: dict[str, float] = dataclasses.field(default_factory=dict)
    pattern: str | None = None
    is_optional: bool = False
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, such as `integer, at least 1, or null`."""
        if self.choices:
            *init, last = map(str, self.choices)
            text = f"{', '.join(init)} or {last}"
            text = f"list of {text}" if self.base is list else text
        else:
            text = _TYPE_NAMES[self.base]
        for name, words in _NAMED_BOUNDS:
            if (bound := self.bounds.get(name)) is not None and abs(bound) < SANITY_BOUND:
                text += f", {words} {bound:g}"
        if self.pattern:
            text += f" that matches `{self.pattern}`"
        text = " or ".join([*self.keywords, f"a {text}" if self.keywords else text])
        return f"{text}, or null" if self.is_optional else text


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting; a stream's key is `streams.NAME.width` and the like."""

    key: str
    values: ValueType
    is_required: bool
    default: Any
    description: str

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return first_sentence(self.description)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a recipe, or one inside it (`streams.NAME`, `tasks.train`)."""

    key: str
    description: str
    settings: tuple[Setting, ...]

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return first_sentence(self.description)


@cache
def list_sections() -> tuple[Section, ...]:
    """Every section with its settings, in the order of a recipe."""
    sections: list[Section] = []
    recipe: Any = Recipe
    for name, field in recipe.__pydantic_fields__.items():
        *_, owner = get_args(field.annotation) or (field.annotation,)  # streams: dict[str, Stream]
        key = f"{name}.{STREAM_NAME}" if get_origin(field.annotation) is dict else name
        sections += _sections_below(key, owner, owner.__doc__ or "")
    return tuple(sections)


def _sections_below(key: str, owner: Any, description: str) -> list[Section]:
    """The section `key`, whose class is `owner`, and the sections inside it."""
    settings: list[Setting] = []
    inner: list[Section] = []
    for name, field in owner.__pydantic_fields__.items():
        if inner_section := _section_class(field.annotation):
            inner += _sections_below(f"{key}.{name}", inner_section, field.description or "")
        else:
            settings.append(_describe_setting(f"{key}.{name}", field))
    return [Section(key, join_lines(description), tuple(settings)), *inner]


def _section_class(annotation: Any) -> Any:
    """The class of a section, also of one that may be null; None if the annotation is of a setting."""
    members = [member for member in (get_args(annotation) or (annotation,)) if member is not type(None)]
    return members[0] if len(members) == 1 and dataclasses.is_dataclass(members[0]) else None


def _describe_setting(key: str, field: FieldInfo) -> Setting:
    is_required = field.is_required()
    default = None if is_required else field.get_default(call_default_factory=True, validated_data={})
    return Setting(key, _value_type(field), is_required, default, join_lines(field.description or ""))


def _value_type(field: FieldInfo) -> ValueType:
    """The values that a field takes, from its annotation and its constraints."""
    annotation, metadata, is_optional = field.annotation, list(field.metadata), False
    keywords: tuple[str, ...] = ()
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        is_optional = type(None) in members
        annotation, *literals = (member for member in members if member is not type(None))
        keywords = tuple(itertools.chain.from_iterable(map(get_args, literals)))
    if get_origin(annotation) is Annotated:
        annotation, *constraints = get_args(annotation)
        metadata += [item for constraint in constraints for item in constraint.metadata]
    bounds = {
        name: getattr(item, name)
        for item in metadata
        for name, _ in _NAMED_BOUNDS
        if getattr(item, name, None) is not None
    }
    pattern = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ValueType(type(arguments[0]), arguments, is_optional=is_optional)
    if origin is list and get_origin(arguments[0]) is Literal:
        return ValueType(list, get_args(arguments[0]), is_optional=is_optional)
    base: Any = origin or annotation
    if base is int and "gt" in bounds:
        bounds["ge"] = bounds.pop("gt") + 1
    return ValueType(base, (), bounds, pattern, is_optional, keywords)


@cache
def settings_by_key() -> dict[str, Setting]:
    """Every setting by its whole key."""
    return {setting.key: setting for section in list_sections() for setting in section.settings}


def general_key(key: str) -> str:
    """`streams.mae.width` as `streams.NAME.width`; any other key unchanged."""
    parts = key.split(".")
    if parts[0] == "streams" and len(parts) > 1:
        parts[1] = STREAM_NAME
    return ".".join(parts)


def find_sections(key: str | None = None) -> list[Section]:
    """The sections and settings that `key` names: a setting, a section with all below it, or all of them (None).

    The last part of a key alone, such as `batch_size`, names the settings of every section that has it.

    Raises:
        UserError: the key is unknown; the message names the nearest one.
    """
    sections = list_sections()
    if key is None:
        return list(sections)
    key = general_key(key)
    if whole_sections := [section for section in sections if is_in_section(section, key)]:
        return whole_sections
    matches = _with_settings(sections, lambda name: name == key)
    matches = matches or _with_settings(sections, lambda name: name.endswith(f".{key}"))
    if not matches:
        raise UserError(f"{key}: unknown key.{_nearest_key(key)}")
    return matches


def is_in_section(section: Section, key: str) -> bool:
    """Whether `section` is the section that `key` names, or inside it."""
    return f"{section.key}.".startswith(f"{general_key(key)}.")


def _with_settings(sections: Iterable[Section], is_match: Callable[[str], bool]) -> list[Section]:
    """The sections reduced to the settings whose keys match, without empty ones."""
    reduced = [
        dataclasses.replace(section, settings=tuple(setting for setting in section.settings if is_match(setting.key)))
        for section in sections
    ]
    return [section for section in reduced if section.settings]


def _nearest_key(key: str) -> str:
    """A hint at the known key that is nearest to `key`, as a whole or by its last part."""
    known = [*settings_by_key(), *(section.key for section in list_sections())]
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=1) or [
        by_last_part[name] for name in difflib.get_close_matches(key.rpartition(".")[2], by_last_part, n=1)
    ]
    return f" Did you mean `{near[0]}`?" if near else " `signllava recipes explain` lists all keys."


def join_lines(text: str) -> str:
    """A docstring without its line breaks; paragraphs stay apart."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def first_sentence(text: str) -> str:
    """The text up to the first full stop that ends a sentence."""
    paragraph = text.split("\n\n")[0]
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + "." if stop else paragraph
