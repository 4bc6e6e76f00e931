"""Options that set a recipe key: type, bounds, choices and help come from the setting's field."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from signllava_cli.cli.completion import complete_profile
from signllava_cli.cli.options import SetOption
from signllava_cli.recipe.descriptions import SANITY_BOUND, ValueType, settings_by_key
from signllava_cli.recipe.reading import format_override

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
OVERRIDES = "overrides"  # the parameter of a command that its setting options replace
_SET = inspect.Parameter("set_", KEYWORD_ONLY, default=None, annotation=SetOption)


@dataclass(frozen=True)
class SettingOption:
    """An option that sets `key`; it beats `--set` and the recipe.

    Attributes:
        flag: such as `--beams`.
        panel: title of the box of `--help` that it stands in.
        metavar: what stands for the value in `--help`, if not its type.
        separator: of the items of a list, in one value; without it the option is repeatable.
        complete: the values that Tab completes, if these are not choices.
    """

    key: str
    flag: str
    panel: str | None = None
    metavar: str | None = None
    separator: str | None = None
    complete: Callable[[], list[str]] | None = None

    @property
    def name(self) -> str:
        """The parameter's name, such as `beams`."""
        return self.flag.removeprefix("--").replace("-", "_")

    def parameter(self) -> inspect.Parameter:
        """The parameter that Typer makes the option of; None: not given."""
        setting = settings_by_key()[self.key]
        values = setting.values
        is_repeatable = values.base is list and self.separator is None
        help_text = f"{setting.summary} {'Repeatable. ' if is_repeatable else ''}Sets {self.key}."
        lowest, highest = _closed_bounds(values)
        option = typer.Option(
            self.flag,
            metavar=self.metavar,
            min=lowest,
            max=highest,
            help=help_text,
            rich_help_panel=self.panel,
            autocompletion=self.complete,
        )
        annotation = Annotated[self._option_type(values) | None, option]  # type: ignore[valid-type]
        return inspect.Parameter(self.name, KEYWORD_ONLY, default=None, annotation=annotation)

    def override(self, value: Any) -> str:
        """The value of the option as `--set` takes it."""
        if self.separator is not None:
            value = [item.strip() for item in value.split(self.separator)]
        return format_override(self.key, value)

    def _option_type(self, values: ValueType) -> Any:
        if values.base is list:
            return list[str] if self.separator is None else str
        return Literal[values.choices] if values.choices else values.base


LAUNCH_SETTINGS = (
    SettingOption("launch.profile", "--launch", metavar="PROFILE", complete=complete_profile),
    SettingOption("launch.num_processes", "--num-processes"),
    SettingOption("launch.num_machines", "--num-machines"),
    SettingOption("launch.machine_rank", "--machine-rank"),
    SettingOption("launch.main_process_ip", "--main-process-ip", metavar="HOST"),
    SettingOption("launch.main_process_port", "--main-process-port", metavar="PORT"),
)


def setting_options(*options: SettingOption) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameter `overrides` of a command by these options and `--set`.

    The command gets `overrides`, a list of `KEY=VALUE`: those of `--set` first, so that an option beats them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        added = [*(option.parameter() for option in options), _SET]
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += added if parameter.name == OVERRIDES else [parameter.replace(kind=KEYWORD_ONLY)]

        @functools.wraps(command)
        def call(*, set_: list[str] | None = None, **arguments: Any) -> None:
            overrides = list(set_ or [])
            for option in options:
                if (value := arguments.pop(option.name, None)) is not None:
                    overrides.append(option.override(value))
            command(**arguments, overrides=overrides)

        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return call

    return decorate


def setting_help(key: str) -> str:
    """The first sentence about a setting, for an option that takes more than its value."""
    return settings_by_key()[key].summary


def _closed_bounds(values: ValueType) -> tuple[float | None, float | None]:
    """The smallest and the largest value, where there is one that is not for typing errors alone.

    An open bound of numbers is left to the recipe's own check: Typer has none.
    """
    low, high = values.bounds.get("ge"), values.bounds.get("le")
    return low, high if high is not None and high < SANITY_BOUND else None
