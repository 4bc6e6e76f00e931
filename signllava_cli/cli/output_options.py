"""The options `--quiet` and `--json`, which every command has."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from signllava_cli import console

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
PANEL = "Output"
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results, warnings and errors.", rich_help_panel=PANEL)
]
JSONOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print results as JSON, and messages as lines of JSON on stderr.", rich_help_panel=PANEL
    ),
]
OUTPUT_OPTIONS = {"quiet": QuietOption, "as_json": JSONOption}


class CommandGroup(typer.Typer):
    """A `typer.Typer` whose commands have the options `--quiet` and `--json`."""

    def command(self, *arguments: Any, **settings: Any) -> Callable[[Any], Any]:
        """Register a command, with the two options."""
        register = super().command(*arguments, **settings)

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            register(_with_output_options(function))
            return function

        return decorate


def _with_output_options(command: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(command)
    parameters = [parameter.replace(kind=KEYWORD_ONLY) for parameter in signature.parameters.values()]
    parameters += [
        inspect.Parameter(name, KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in OUTPUT_OPTIONS.items()
    ]

    @functools.wraps(command)
    def call(*, quiet: bool, as_json: bool, **arguments: Any) -> None:
        console.set_output(quiet, as_json)
        command(**arguments)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call
