"""What is printed holds no line break and no control code of a name, and no text of any length."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

from signllava_cli import console
from signllava_cli.errors import MAX_LINE, UserError

Command = Callable[..., Ended]
ONE_LINE = pytest.mark.reliability("Bad input", "an error is one line, whatever it quotes")


@ONE_LINE
def test_an_error_that_quotes_a_line_break_or_a_control_code_is_one_line(signllava: Command, tmp_path: Path) -> None:
    ended = signllava("eval", tmp_path / "a\nerror: b\x1b[2J\r\u202e.jsonl")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {tmp_path}/a\\nerror: b\\x1b[2J\\r\\u202e.jsonl cannot be read")
    assert len(ended.err.splitlines()) == 1


@ONE_LINE
def test_an_error_that_quotes_a_long_text_is_short_and_keeps_its_end() -> None:
    message = str(UserError(f"--set {'x' * 10_000_000}: the value is not YAML"))
    assert len(message) < MAX_LINE + 20
    assert message.startswith("--set xxx")
    assert message.endswith("the value is not YAML")


@ONE_LINE
def test_several_errors_of_a_recipe_have_a_line_each(signllava: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text('{"a\\nb": 1, "train": {"max_steps": "x\\ny"}}')
    ended = signllava("recipes", "validate", recipe)
    assert ended.code == 2
    first, *others = ended.err.splitlines()
    assert first == f"error: {recipe} has 2 errors:"
    assert len(others) == 2
    assert any(line.startswith("  a\\nb: unknown key") for line in others)


@ONE_LINE
def test_an_error_of_another_process_is_the_same() -> None:
    error = UserError("a\nb", "  c")
    assert pickle.loads(pickle.dumps(error)).lines == error.lines == ["a\\nb", "  c"]  # noqa: S301


@ONE_LINE
def test_information_and_tables_escape_what_they_quote(capsys: pytest.CaptureFixture[str]) -> None:
    console.info("a\nb \udcff")
    console.warning("c\x1b[31md")
    console.print_table("t\nu", ["x"], [["e\nf \ud800"]])
    out = capsys.readouterr().out
    assert "a\\nb \\udcff\n" in out
    assert "warning: c\\x1b[31md\n" in out
    assert "t\\nu" in out
    assert "e\\nf \\ud800" in out
