"""Fixtures of all tests: the toy corpus, a tiny LLM, a short run, and the command `signllava`."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # small models are not faster with more, and tests run in parallel
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

from signllava_cli.cli.main import run as run_command_line
from signllava_cli.files import exclusive_access
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from signllava_cli.data.split import Split

# Settings that turn on every random choice of an example.
ALL_TASKS = [
    *(f"tasks.train.{task}=1" for task in ("one_word_present", "multi_word_present", "is_reversed")),
    *(f"tasks.dev.{task}=1" for task in ("one_word_present", "multi_word_present", "is_reversed")),
    "tasks.paraphrases=0.5",
    "context.dropout=0.3",
    "context.sentence_dropout=0.2",
    "context.min_window=0",
    "context.min_prelude=1",
]


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: the folder `name`, which the first pytest-xdist worker that needs it makes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with exclusive_access(shared / f"{name}.lock"):
            if not (shared / name).exists():
                make(shared / f"{name}.tmp")
                (shared / f"{name}.tmp").rename(shared / name)
        return shared / name

    return folder


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def corpus(made_once: MadeOnce) -> Path:
    """The toy corpus with seed 0. Tests must not write to it."""
    return made_once("toy", write_toy_corpus)


@pytest.fixture(scope="session")
def tiny_llm(made_once: MadeOnce, corpus: Path) -> Path:
    """A tiny LLM that was trained for some seconds; its translations are poor."""

    def make(folder: Path) -> None:
        from signllava_cli.model.tiny_llm import save_tiny_llm

        save_tiny_llm(folder, corpus, read_recipe("toy/tiny_pretrain").tasks, steps=120)

    return made_once("tiny", make)


@pytest.fixture(scope="session")
def run(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> Path:
    """A short pretraining; its hypotheses are poor, but differ between clips. Tests must not write to it."""

    def make(folder: Path) -> None:
        from signllava_cli.training.loop import train

        settings = [f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.output_dir={folder}", "train.max_steps=150"]
        train(read_recipe("toy/tiny_pretrain", settings), "pretrain")

    return made_once("run", make)


@pytest.fixture
def settings(corpus: Path, tiny_llm: Path, tmp_path: Path) -> list[str]:
    """Overrides with which a toy recipe uses the folders of this test and takes a few seconds."""
    return [
        f"llm.path={tiny_llm}",
        f"data.root={corpus}",
        f"run.output_dir={tmp_path / 'run'}",
        "train.max_steps=6",
        "train.batch_size=4",
        "train.micro_batch_size=4",
        "train.save_steps=2",
        "train.eval_steps=3",
        "track.logging_steps=1",
    ]


@pytest.fixture
def recipe(settings: list[str]) -> Recipe:
    """The toy pretrain recipe with the overrides `settings`."""
    return read_recipe("toy/tiny_pretrain", settings)


@pytest.fixture
def signllava(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run the command in this process: `signllava("pretrain", "--recipe", ...)`."""

    def command(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["signllava", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return command


def open_recipe_split(recipe: Recipe, split: str) -> "Split":
    """Open a split of the dataset of `recipe` with its streams."""
    from signllava_cli.prepare.indexing import open_split

    return open_split(recipe.data, recipe.streams, split)


def sets(settings: list[str]) -> list[str]:
    """`settings` as `--set` options."""
    return [word for setting in settings for word in ("--set", setting)]


def subprocess_command(*words: object, **options: object) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "signllava_cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def interrupted(file: str, count: int, number: int) -> dict[str, str]:
    """An environment in which a command gets `number` as a signal when it opens `file` for the `count`-th time."""
    path = os.pathsep.join([str(Path(__file__).parent / "interrupted"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "INTERRUPT": f"{file}:{count}:{int(number)}"}
