"""`signllava completion`: Tab completion of commands, options, recipes, launch profiles and settings.

Where nothing of ours begins like the word, the shell completes files.
"""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

COMPLETION_VARIABLE = "_SIGNLLAVA_COMPLETE"  # Typer's, of a command named signllava
# Typer's script uses `compdef`, which zsh has after `compinit` alone.
ZSH_HEAD = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"


class Shell(StrEnum):
    """The shells whose completion is tested."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[Shell | None, typer.Argument(help="Default: the shell that this runs in.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the script, and install nothing.")] = False,
) -> None:
    """Install Tab completion: of commands, options, recipes, launch profiles and settings.

    It writes a script into your home folder and, for bash and zsh, one line that reads it into `.bashrc` or `.zshrc`.
    """
    from signllava_cli.console import info, print_text

    shell = shell or _running_shell()
    if show:
        print_text(_script(shell) + "\n")
        return
    file = _install(shell)
    info(f"completion for {shell} installed in {file}; open a new terminal to use it")


def register_completion() -> None:
    """Make Typer answer the requests of these scripts, if this process is one; it does so before any command runs."""
    if COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()


def complete_recipe(incomplete: str = "") -> list[str]:
    """The shipped recipes, or variants behind a `+`; Typer keeps those that begin like the word."""
    from signllava_cli.recipe import shipped_recipes, shipped_variants

    recipe, plus, _ = incomplete.rpartition("+")
    return [f"{recipe}+{variant}" for variant in shipped_variants()] if plus else shipped_recipes()


def complete_profile() -> list[str]:
    """The shipped launch profiles."""
    from signllava_cli.recipe import shipped_profiles

    return shipped_profiles()


def complete_key() -> list[str]:
    """The keys of all settings, without those of single streams."""
    from signllava_cli.recipe.descriptions import settings_by_key

    return [key for key in settings_by_key() if not key.startswith("streams.")]


def complete_override() -> list[str]:
    """The keys of all settings as `--set` takes them."""
    return [f"{key}=" for key in complete_key()]


def _running_shell() -> Shell:
    """The shell in which the command was typed.

    Raises:
        UserError: it is another one, or none.
    """
    import shellingham

    from signllava_cli.errors import UserError

    names = ", ".join(Shell)
    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        raise UserError(f"Your shell was not recognized: name it, one of {names}.") from None
    if name not in list(Shell):
        raise UserError(f"{name} is not supported: name one of {names}.")
    return Shell(name)


def _script(shell: Shell) -> str:
    """Typer's script for a shell."""
    from typer.completion import get_completion_script

    names = {"prog_name": "signllava", "complete_var": COMPLETION_VARIABLE, "shell": shell.value}
    script: str = get_completion_script(**names)
    return f"{ZSH_HEAD if shell == Shell.zsh else ''}{script}"


def _install(shell: Shell) -> Path:
    """Write the script where the shell finds it, or where a line of its settings reads it; the file."""
    from signllava_cli.files import append_text, write_text

    home = Path.home()
    if shell == Shell.fish:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions"
        file = folder / "signllava.fish"
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "signllava"
        file = folder / f"completion.{shell}"
    write_text(file, _script(shell) + "\n")
    if shell != Shell.fish:
        settings = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc" if shell == Shell.zsh else home / ".bashrc"
        line = f"source {shlex.quote(str(file))}"
        text = settings.read_text(encoding="utf-8", errors="replace") if settings.exists() else ""
        if line not in text.splitlines():
            append_text(settings, f"{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n")
    return file
