"""Every command has --quiet and --json: messages are left out, or lines of JSON on stderr; results stay on stdout."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from typer.main import get_command

from signllava_cli import console
from signllava_cli.cli.main import app
from signllava_cli.errors import RunStopped, UserError
from signllava_cli.recipe import shipped_recipes, shipped_variants

Command = Callable[..., Ended]


def leaves(command: Any, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """Each command that is not a group, by its words."""
    below = getattr(command, "commands", None)
    if below is None:
        return {" ".join(words): command}
    return {name: leaf for word, each in below.items() for name, leaf in leaves(each, (*words, word)).items()}


@pytest.mark.parametrize(("name", "command"), leaves(get_command(app)).items())
def test_each_command_has_both_options(name: str, command: Any) -> None:
    options = {flag: option.help for option in command.params for flag in option.opts}
    assert options["--quiet"] == options["-q"] == "Print only results, warnings and errors."
    assert options["--json"] == "Print results as JSON, and messages as lines of JSON on stderr."


def test_a_document_is_the_whole_stdout(signllava: Command) -> None:
    listed = json.loads(signllava("recipes", "list", "--json").out)
    assert listed == {"recipes": shipped_recipes(), "variants": shipped_variants()}
    shown = json.loads(signllava("recipes", "show", "toy/tiny_pretrain", "--json", "--set", "run.seed=7").out)
    assert shown["run"]["seed"] == 7


def test_a_text_is_a_document_too(signllava: Command, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("TrainingArguments: {learning_rate: 0.1}\n")
    for words in (
        ["recipes", "explain", "train.learning_rate"],
        ["recipes", "explain", "--markdown"],
        ["recipes", "import", old],
        ["completion", "bash", "--show"],
    ):
        assert json.loads(signllava(*words, "--json").out) == {"text": signllava(*words).out}


def test_quiet_leaves_out_messages_and_json_makes_them_lines_on_stderr(signllava: Command, tmp_path: Path) -> None:
    words = ["prepare", "toy", "--out"]
    shown = signllava(*words, tmp_path / "a")
    quiet = signllava(*words, tmp_path / "b", "--quiet")
    as_json = signllava(*words, tmp_path / "c", "--json")
    assert shown.out.startswith(f"toy corpus in {tmp_path / 'a'}")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    message = {"type": "info", "message": shown.out.strip().replace(f"{tmp_path}/a", f"{tmp_path}/c")}
    assert as_json.out == ""
    assert [json.loads(line) for line in as_json.err.splitlines()] == [message]


def test_results_stay_when_quiet(signllava: Command, corpus: Path) -> None:
    words = ["prepare", "index", corpus, "--split", "dev"]
    assert signllava(*words, "-q").out == signllava(*words).out != ""
    (indexed,) = json.loads(signllava(*words, "--json").out).items()
    assert indexed[0] == "dev"
    assert indexed[1]["clips"] > 0


def test_an_error_is_a_json_line_too(signllava: Command) -> None:
    ended = signllava("recipes", "validate", "no such\nrecipe", "--json")
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    error = json.loads(line)
    assert error["type"] == "error"
    assert error["message"].startswith("No recipe at no such\\nrecipe. ")


def test_the_log_of_a_run_ends_with_the_reason_of_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    for end in (UserError("a is missing;\nadd it.", "b"), RunStopped("stopped at step 3."), ValueError("bug")):
        with pytest.raises(type(end)), console.log_to(log):
            raise end
    with console.log_to(log):
        console.error("machine 1 no longer answers")
    assert [line[len("2026-01-01 00:00:00 ") :] for line in log.read_text().splitlines()] == [
        *("error: a is missing;\\nadd it.", "b"[len("2026-01-01 00:00:00 ") :], "stopped at step 3."),
        *("error: ValueError: bug", "error: machine 1 no longer answers"),
    ]


def test_a_command_that_another_one_runs_prints_likewise() -> None:
    script = (
        "from signllava_cli import console, processes\n"
        "console.set_output(quiet=True, as_json=True)\n"
        "processes.run_signllava(['recipes', 'list'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout)["recipes"] == shipped_recipes()
    assert ended.stderr == ""
