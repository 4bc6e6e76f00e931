"""Writes docs/cli.md from the commands themselves: python docs/site/cli_reference.py > docs/cli.md"""

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer.main

from signllava_cli.cli.main import app
from signllava_cli.cli.output_options import OUTPUT_OPTIONS

HEADER = """# Every command

<!-- Written by `python docs/site/cli_reference.py > docs/cli.md` from the commands themselves. -->

`signllava COMMAND --help` prints the same. Many options set a key of the recipe: [every setting](recipe.md) says what
it does. `--set KEY=VALUE` sets any other.

Two options belong to every command, and are not repeated below. `--quiet`, `-q` prints only results, warnings and
errors: neither progress nor what was done. `--json` prints results as JSON on stdout, and each message as a line of
JSON on stderr: an object with `type` (`info`, `warning`, `error`, `progress`) and `message`.

With `--json` the stdout of `env`, `eval`, `checkpoint inspect`, `push` and `pull`, `prepare describe`, `index`,
`push` and `pull`, `recipes list`, `show`, `schema` and `explain`, and of any command with `--estimate` is one JSON
document; so is that of `recipes import` without `--out` and `completion --show`, an object with `text`.
Other commands print each result in one line, as an object with `type`: `table` (`title`, `rows`) or `line`
(`text`).
"""
FOOTER = """
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | a bug: a traceback is printed; or a lost machine or rank: one line says so, and the same command resumes |
| 2 | an error that you can fix: one line says what happened, where, and what to do |
| 75 | stopped by a signal or a time limit with its state saved: run the same command again |
| 130 | interrupted |
| 128 + N | signal N has ended a rank of a run with `--launch`: one line names it, and the same command resumes |
"""


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command below `command` that is not a group, with its words, in the order of `--help`."""
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from commands(below, (*words, name))
        elif not below.hidden:
            yield (*words, name), below


def reference() -> str:
    """The whole page."""
    found = list(commands(typer.main.get_command(app), ("signllava",)))
    lines = [HEADER, "| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{' '.join(words)}`](#{anchor(words)}) | {first_sentence(command)} |" for words, command in found]
    return "\n".join([*lines, *(section(words, command) for words, command in found)]) + "\n" + FOOTER


def anchor(words: tuple[str, ...]) -> str:
    return "-".join(words)


def first_sentence(command: Any) -> str:
    return re.split(r"(?<=\.)\s", one_line(command.help))[0]


def section(words: tuple[str, ...], command: Any) -> str:
    """A command: its description, how it is called, and a table of its arguments and options."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each
        for each in command.params
        if each.param_type_name == "option" and not each.hidden and each.name not in OUTPUT_OPTIONS
    ]
    usage = " ".join([*words, *(argument_usage(each) for each in arguments), "[OPTIONS]"])
    text = "\n\n".join(one_line(part) for part in (command.help or "").split("\n\n"))
    context = typer.Context(command, info_name=words[-1])
    rows = [(f"`{each.name.upper()}`", each) for each in arguments]
    rows += [(option_names(each), each) for each in options]
    table = [f"| {name} | {value_type(each, context)} | {description(each)} |" for name, each in rows]
    lines = [f"\n## `{' '.join(words)}`", "", text, "", "```text", usage, "```", "", *table_header(table), *table]
    return "\n".join(lines)


def table_header(rows: list[str]) -> list[str]:
    return ["| | value | |", "| --- | --- | --- |"] if rows else []


def argument_usage(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def option_names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def value_type(parameter: Any, context: Any) -> str:
    """What an argument or an option takes: its metavar, its choices or its type."""
    if getattr(parameter, "is_flag", False):
        return ""
    value = parameter.metavar if parameter.metavar and parameter.param_type_name == "option" else None
    kind = value or parameter.display_type(context).strip("<>").removesuffix(" range")
    return "`" + kind.replace("|", "\\|") + "`"


def description(parameter: Any) -> str:
    """The help text; what must be given; the default, if it is a value."""
    text = one_line(parameter.help or "").replace("|", "\\|")
    if parameter.required:
        return f"{text} Required." if parameter.param_type_name == "option" else text
    default = parameter.default
    is_value = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"{text} Default: `{default}`." if is_value and "efault" not in text else text


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
