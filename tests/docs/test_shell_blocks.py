"""Every shell block of the documentation is run by a test, or says why not; and its commands and options exist."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import typer.main
from doc_pages import PAGES, ROOT, ShellBlock, name_of, shell_blocks, signllava_commands, without_code

from signllava_cli.cli.main import app
from signllava_cli.recipe.descriptions import general_key, list_sections, settings_by_key

REASON = re.compile(r"needs (a GPU|the network|licensed data|SLURM|several machines|a running server|hours)\b")
BLOCKS = [block for page in PAGES for block in shell_blocks(page)]
# Pages whose fenced blocks a test of their own runs, all of them.
RUN_WHOLE = {"docs/extending.md": "tests/test_extending.py"}


@cache
def marks_of_tests() -> dict[str, set[str]]:
    """Page -> the texts by which tests take its blocks with `shell_block(PAGE, MARK)`."""
    marks: dict[str, set[str]] = {}
    texts = [file.read_text() for file in (ROOT / "tests").rglob("*.py")]
    for text in texts:
        for node in ast.walk(ast.parse(text)) if "shell_block(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "shell_block":
                page, mark = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
                marks.setdefault(str(page), set()).add(str(mark))
    return marks


def is_run(block: ShellBlock) -> bool:
    if block.page in RUN_WHOLE:
        return True
    return any(mark in block.script for mark in marks_of_tests().get(block.page, ()))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_test_runs_a_block_or_a_comment_says_why_not(block: ShellBlock) -> None:
    if block.reason is None:
        assert is_run(block), f"no test runs it, and no `<!-- not run: needs ... -->` stands above:\n{block.script}"
    else:
        assert REASON.match(block.reason), block.reason
        assert not is_run(block), "a test runs it: remove the comment"


def test_a_mark_of_a_test_is_in_one_block() -> None:
    for page, marks in marks_of_tests().items():
        for mark in marks:
            assert sum(mark in block.script for block in BLOCKS if block.page == page) == 1, (page, mark)


def test_pages_that_are_run_whole_are_read_by_their_test() -> None:
    for page, test in RUN_WHOLE.items():
        text = (ROOT / test).read_text()
        assert page.rpartition("/")[2] in text
        calls = re.findall(r'\.commands\("([\w ]+)"(?:, (\d))?\)', text)
        assert len(calls) == len([block for block in BLOCKS if block.page == page])


@cache
def whole_command() -> Any:
    return typer.main.get_command(app)


@cache
def setting_keys() -> set[str]:
    return settings_by_key().keys() | {section.key for section in list_sections()} | {"streams"}


def check(words: list[str], is_whole: bool) -> str | None:
    """What is wrong with a `signllava` command, given without that word; `is_whole`: nothing is left out of it."""
    command = whole_command()
    path = ["signllava"]
    words = list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        names = words.pop(0).split("|")
        if names[0].isupper():  # a placeholder, such as COMMAND
            return None
        if unknown := [name for name in names if name not in command.commands]:
            return f"{' '.join(path)} has no command {unknown[0]}"
        path.append(names[0])
        command = command.commands[names[0]]
    if hasattr(command, "commands"):
        return None
    context = typer.Context(command, info_name=" ".join(path))
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    if not is_whole:
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options]
        return f"{' '.join(path)} has no option {unknown[0]}" if unknown else None
    try:
        command.parse_args(context, words)
    except typer.TyperException as error:
        return f"{' '.join(path)}: {error.format_message()}"
    return None


def settings(words: list[str]) -> Iterator[str]:
    """The keys that a command sets."""
    yield from (after.partition("=")[0] for word, after in pairwise(words) if word == "--set")


def is_setting(key: str) -> bool:
    return general_key(key) in setting_keys()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_commands_of_a_block_exist_with_their_options_and_settings(block: ShellBlock) -> None:
    for words in signllava_commands(block.script):
        if block.page != "docs/extending.md":  # whose examples add a command
            assert check(words, is_whole=True) is None, words
        if "is_question" not in block.script:  # the setting that an example adds
            assert all(map(is_setting, settings(words))), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_of_a_page_exist_with_their_options(page: Any) -> None:
    text = without_code(page.read_text()).replace("\\|", "|")
    for span in re.findall(r"`signllava ([^`]+)`", text):
        words = [word.strip("[].,") for word in re.split(r"\s+", span) if word != "..."]
        assert check(words, is_whole=False) is None, span
        assert all(is_setting(key) for key in settings(words) if key not in ("KEY", "...")), span


def test_a_stale_option_is_found() -> None:
    assert check(["generate", "--checkpoint", "C", "--beam-width", "5"], is_whole=True)
    assert check(["generate", "--beam-width"], is_whole=False)
    assert check(["prepare", "packs"], is_whole=False)
    assert check(["pretrain"], is_whole=True), "without the recipe, which must be given"
    assert not is_setting("train.lr")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_in_the_text_of_a_page_exist(page: Any) -> None:
    names = "|".join(sorted({key.partition(".")[0] for key in setting_keys()}))
    text = without_code(page.read_text())
    keys = re.findall(rf"`((?:{names})\.[\w.]*\w)(?:[:=][^`]*)?`", text)
    no_setting = re.compile(r"\.(py|csv|yaml|json|tsv|h5|TASK)$")  # files, and the name of any task
    unknown = [key for key in keys if not is_setting(key) and not no_setting.search(key)]
    assert not unknown
