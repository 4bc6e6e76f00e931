"""The types that settings of a recipe share, and the decorator of its sections."""

from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field
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

# A section's fields are described by the docstrings below them: pydantic reads these from the source.
section = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
