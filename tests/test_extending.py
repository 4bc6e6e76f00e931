"""The worked examples of docs/extending.md, each applied to a copy of the repository, as a contributor would.

A block of the page that begins with `# FILE` is a new file, one that begins with `+++ FILE` changes a file, and `sh`
blocks hold commands.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import run_script

from signllava_cli.errors import UserError
from signllava_cli.recipe import Launch

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
NEEDED = ("signllava_cli", "recipes", "accelerate_configs", "docs", "tests", "pyproject.toml", "CHANGELOG.md")


@dataclass(frozen=True)
class Block:
    """A fenced block of the page: its `language`, the `file` in its first line if it has one, and its other lines."""

    language: str
    file: str
    content: str


def blocks_of(example: str) -> list[Block]:
    """The blocks of the section `## A {example}`."""
    [section] = re.findall(rf"^## An? {example}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    fenced = re.findall(r"^```(\w+)\n((?:# |\+\+\+ )(\S+\.\w+)\n)?(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [Block(language, file, content) for language, _, file, content in fenced]


EXAMPLES = re.findall(r"^## An? (.*)", PAGE, re.MULTILINE)


class Checkout:
    """A copy of the repository, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)

    def apply(self, example: str) -> None:
        """Write the new files and the changes of an example."""
        for block in blocks_of(example):
            if block.language == "diff":
                self._change(self.folder / block.file, block.content)
            elif block.file:
                file = self.folder / block.file
                assert not file.exists()
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.content)

    def _change(self, file: Path, diff: str) -> None:
        text = file.read_text()
        for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
            lines = hunk.splitlines(keepends=True)
            assert all(line[0] in " +-" for line in lines)
            old = "".join(line[1:] for line in lines if line[0] != "+")
            new = "".join(line[1:] for line in lines if line[0] != "-")
            assert text.count(old) == 1, f"{file.name} has these lines {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        file.write_text(text)

    def shell(self, script: str) -> str:
        """What `script` prints; each of its commands must end with exit code 0."""
        return run_script(
            script, self.folder, Path(sys.executable).parent, PYTHONPATH=str(self.folder), COLUMNS="200"
        )

    def commands(self, example: str, number: int = 0) -> str:
        """Run the `number`-th block of commands of an example; what they print."""
        return self.shell([block.content for block in blocks_of(example) if block.language == "sh"][number])


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the repository."""
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def toy(checkout: Checkout, corpus: Path) -> Checkout:
    """A copy of the repository with the toy corpus in data/toy."""
    shutil.copytree(corpus, checkout.folder / "data" / "toy")
    return checkout


@pytest.fixture
def toy_llm(toy: Checkout, tiny_llm: Path) -> Checkout:
    """A copy of the repository with the toy corpus and the tiny LLM in data/."""
    (toy.folder / "data" / "llm").mkdir()
    (toy.folder / "data" / "llm" / "tiny").symlink_to(tiny_llm)
    return toy


def test_the_page_has_the_examples() -> None:
    assert EXAMPLES == ["metric", "task", "importer", "stream", "launch profile"]


@pytest.mark.parametrize(
    "example",
    ["metric", pytest.param("task", marks=pytest.mark.drill), pytest.param("importer", marks=pytest.mark.drill)],
)
def test_the_test_of_an_example_passes(example: str, checkout: Checkout) -> None:
    checkout.apply(example)
    [test] = [block.file for block in blocks_of(example) if block.file.startswith("tests/")]
    checkout.shell(f"python -m pytest -q -p no:cacheprovider {test}")


def test_the_new_metric_is_in_the_tables_of_eval(checkout: Checkout) -> None:
    checkout.apply("metric")
    printed = checkout.commands("metric")
    assert re.search(r"exact % ┃ length % ┃", printed)
    assert re.search(r"│ +62\.50 │$", printed, re.MULTILINE)  # 5 words of 8
    assert "length_ratio|case:mixed|tok:13a" in printed


def test_the_new_task_is_described(checkout: Checkout) -> None:
    checkout.apply("task")
    checkout.commands("task")
    assert "### `tasks.dev.is_question`" in (checkout.folder / "docs" / "recipe.md").read_text()


@pytest.mark.drill
def test_the_new_task_is_trained_decoded_and_scored(toy_llm: Checkout) -> None:
    toy_llm.apply("task")
    printed = toy_llm.commands("task", 1)
    assert "accuracy" in printed


def test_prepare_check_accepts_what_the_new_importer_writes(checkout: Checkout) -> None:
    checkout.apply("importer")
    printed = checkout.commands("importer")
    assert "0 errors" in printed
    assert '"Good morning."' in (checkout.folder / "data" / "mycorpus" / "annotation.dev.json").read_text()


@pytest.mark.drill
def test_the_new_stream_is_packed(toy: Checkout) -> None:
    toy.apply("stream")
    toy.shell("python velocity.py data/toy features")
    [command] = re.findall(r"signllava prepare pack .*", PAGE)
    assert "stream velocity of split dev: 38 of 38 clips, width 64" in toy.shell(f"split=dev\n{command}")


@pytest.mark.drill
def test_the_new_stream_is_checked_and_trained(toy_llm: Checkout) -> None:
    toy_llm.apply("stream")
    toy_llm.commands("stream")
    printed = toy_llm.commands("stream", 1)
    assert "0 errors" in printed
    assert "streams sign2vec, mae, velocity" in printed


def test_the_new_profile_is_accepted(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    from signllava_cli import launch
    from signllava_cli.recipe import shipped

    checkout.apply("launch profile")
    for module in (launch, shipped):
        monkeypatch.setattr(module, "shipped_folder", lambda name: checkout.folder / name)
    arguments = launch.build_launcher_args(Launch(profile="single_cpu"))
    assert Path(arguments.config_file) == checkout.folder / "accelerate_configs" / "single_cpu.yaml"
    with pytest.raises(UserError, match="single, single_cpu, zero1"):
        launch.find_profile("nowhere")


@pytest.mark.drill
def test_the_new_profile_launches_and_passes_the_tests_of_profiles(toy_llm: Checkout) -> None:
    toy_llm.apply("launch profile")
    assert "distributed type NO, ranks 1" in toy_llm.commands("launch profile")
    toy_llm.shell("python -m pytest -q -p no:cacheprovider tests/test_profiles.py")


def test_the_code_of_the_examples_is_formatted(checkout: Checkout) -> None:
    for example in EXAMPLES:
        checkout.apply(example)
    checkout.shell("python -m ruff check --no-cache . && python -m ruff format --no-cache --check .")


@pytest.mark.drill
def test_the_code_of_the_examples_is_typed(checkout: Checkout) -> None:
    for example in EXAMPLES:
        checkout.apply(example)
    checkout.shell("python -m mypy")
