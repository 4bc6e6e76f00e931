"""The types that settings of a recipe share, and the decorator of its sections."""

from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

Stage = Literal["pretrain", "finetune"]
Task = Literal["translation", "one_word_present", "multi_word_present", "is_reversed"]
TASKS: tuple[Task, ...] = get_args(Task)
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1e6)]

ALL_LINEAR: Literal["all-linear"] = "all-linear"


def _require_list_or_keyword(value: Any) -> Any:
    if isinstance(value, list) or value == ALL_LINEAR:
        return value
    raise ValueError(f"expected {ALL_LINEAR} or a list of module names")


Modules = Annotated[list[str] | Literal["all-linear"], BeforeValidator(_require_list_or_keyword)]

SectionType = TypeVar("SectionType")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[SectionType]) -> type[SectionType]:
    """A section of the recipe: a frozen dataclass whose values pydantic checks.

    Its fields are described by the docstrings below them, which pydantic reads from the source.
    """
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return cast(type[SectionType], dataclass(frozen=True, kw_only=True, config=config)(cls))
