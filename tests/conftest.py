"""The fixtures of all tests: the toy corpus, a tiny LLM, and the command itself; and the kind of each test."""

import contextlib
import os
import shutil

os.environ["OMP_NUM_THREADS"] = "1"  # small models are not faster with more, and tests run in parallel
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import psutil
import pytest
from browser import CHROMIUM

from signllava_cli import console, processes
from signllava_cli.cli.main import run as run_command_line
from signllava_cli.files import exclusive_access, write_json
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


pytest_plugins = ["reliability_table"]
TESTS = Path(__file__).parent
# What the functions of a `command` test use, directly or through other functions of the tests. Training and decoding
# need an LLM, which only the fixture `tiny_llm` makes.
COMMAND_FIXTURES = {"signllava", "tiny_llm"}
COMMAND_NAMES = {"subprocess", "subprocess_command", "submit_all", "save_tiny_llm"}


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers that follow from its file, its fixtures and the functions it calls."""
    for item in items:
        if item.path.is_relative_to(TESTS / "gpu"):
            item.add_marker("gpu")
        if not any(item.get_closest_marker(kind) for kind in ("unit", "command", "browser", "gpu")):
            item.add_marker("command" if runs_a_command(item) else "unit")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")


def runs_a_command(item: pytest.Item) -> bool:
    """Whether a test runs the `signllava` command, an LLM or another process."""
    if not isinstance(item, pytest.Function):
        return False
    if COMMAND_FIXTURES & set(item.fixturenames):
        return True
    definitions = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(definition.func for group in definitions for definition in group)]
    return any(COMMAND_NAMES & names_used(function, set()) for function in functions)


def names_used(function: Callable[..., object], visited: set[Callable[..., object]]) -> set[str]:
    """The global names in a function or class of the tests, and in the functions and classes that it names."""
    if isinstance(function, type):
        return set().union(*(names_used(member, visited) for member in vars(function).values() if callable(member)))
    if function in visited or not isinstance(function, FunctionType) or not is_of_tests(function):
        return set()
    visited.add(function)
    names = {name for code in code_blocks(function.__code__) for name in code.co_names}
    called = (function.__globals__.get(name) for name in names)
    return names.union(*(names_used(other, visited) for other in called if callable(other)))


def is_of_tests(function: FunctionType) -> bool:
    return Path(function.__code__.co_filename).is_relative_to(TESTS)


def code_blocks(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_blocks(constant)


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


# Overrides that give the toy recipe shorter sequences, by the setting that each of them tests.
SHORTENINGS = {
    "stack": ["streams.mae.stack=3", "streams.sign2vec.stack=2"],
    "conv": ["streams.mae.conv={kernel: 3, stride: 2, layers: 2}", "streams.sign2vec.conv.kernel=5"],
    "join": [
        "streams={left: {width: 32, join: halves, stack: 2}, sign2vec: {width: 48}, "
        "right: {width: 32, join: halves, stack: 2}}"
    ],
}


@pytest.fixture(scope="session")
def halved_corpus(made_once: MadeOnce, corpus: Path) -> Path:
    """The toy corpus with two more streams of equal rate, the halves of mae's numbers.

    In every fifth clip of a split, `right` lacks the last frame. Tests must not write to it.
    """

    def make(folder: Path) -> None:
        from signllava_cli.prepare.dataset_writer import write_stream

        shutil.copytree(corpus, folder, ignore=shutil.ignore_patterns("index.*"))
        for split in ("train", "dev", "test"):
            halves: dict[str, dict[str, dict[str, np.ndarray]]] = {"left": {}, "right": {}}
            clips = open_recipe_split(read_recipe("toy/tiny_pretrain", [f"data.root={corpus}"]), split)
            for number, clip in enumerate(clips.clips):
                frames = clips.read(clip)["mae"]
                halves["left"].setdefault(clip.recording, {})[clip.name] = frames[:, :32]
                shortened = frames[:-1, 32:] if number % 5 == 0 else frames[:, 32:]
                halves["right"].setdefault(clip.recording, {})[clip.name] = shortened
            for name, recordings in halves.items():
                write_stream(folder, split, name, recordings, 2)

    return made_once("halved", make)


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


@pytest.fixture(scope="session")
def video_run(made_once: MadeOnce, tiny_llm: Path) -> Path:
    """`run`: a short pretraining on streams pose and dino of real clips; `data`, `backbone`: theirs."""

    def make(folder: Path) -> None:
        import torch
        from real_clips import CLIPS, clip_file, model_file
        from transformers import Dinov2Config, Dinov2Model

        from signllava_cli.prepare.extract.clip_extractor import ExtractorSettings
        from signllava_cli.prepare.extract.dino_extractor import DinoSettings
        from signllava_cli.prepare.extract.extract import ExtractRequest, extract
        from signllava_cli.prepare.extract.pose_extractor import PoseSettings
        from signllava_cli.training.loop import train

        torch.manual_seed(0)
        config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=518)
        Dinov2Model(config).save_pretrained(folder / "backbone")
        data = folder / "data"
        first = {CLIPS[0]: {"translation": "My sister visits."}, CLIPS[1]: {"translation": "The garden is big."}}
        cut = {"translation": "On Monday we eat.", "start": 0.25, "end": 0.8}
        annotation = {"rec": {"clip_order": [*first], **first}, CLIPS[2]: {"clip_order": ["cut"], "cut": cut}}
        write_json(data / "annotation.train.json", annotation)
        backbone = str(folder / "backbone")
        streams: dict[str, ExtractorSettings] = {
            "pose": PoseSettings(model_file()),
            "dino": DinoSettings.load(backbone, None),
        }
        extract(ExtractRequest(clip_file(CLIPS[0]).parent, data, "train", streams, 1))
        settings = [f"llm.path={tiny_llm}", f"data.root={data}", f"run.output_dir={folder / 'run'}", "data.dev=train"]
        settings += ["streams={pose: {width: 208}, dino: {width: 96}}", "train.max_steps=12"]
        train(read_recipe("toy/tiny_pretrain", settings), "pretrain")

    return made_once("video_run", make)


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
        console.set_output(quiet=False, as_json=False)
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return command


@pytest.fixture
def commands_in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the commands that a command starts in this process instead; the list of their arguments."""
    commands: list[list[str]] = []

    def run_here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[command.index("signllava_cli") + 1 :])
        monkeypatch.setattr(sys, "argv", ["signllava", *commands[-1]])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0))

    monkeypatch.setattr(processes, "run_command", run_here)
    return commands


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


def run_script(script: str, folder: Path, programs: Path, **variables: str) -> str:
    """What a bash script prints in `folder`; each of its commands must end with exit code 0.

    `programs`: the folder whose programs come first. `variables`: of the environment.
    """
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def interrupted(pattern: str, count: int, number: int, event: str = "append") -> dict[str, str]:
    """The environment of a command whose processes get the signal right before their `count`-th such event.

    `event` is `append`, `open` or `rename`, of a file whose name matches `pattern`; see interrupted/sitecustomize.py.
    """
    path = os.pathsep.join([str(TESTS / "interrupted"), os.environ.get("PYTHONPATH", "")])
    interrupt = f"{event}:{pattern}:{count}:{int(number)}"
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "INTERRUPT": interrupt}


def wait_until_stopped(process: subprocess.Popen[str], seconds: float = 300) -> list[psutil.Process]:
    """Wait until SIGSTOP has stopped `process` or one of its children; all of them, `process` last."""
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"ended before it could be stopped: {process.communicate()[0]}"
        assert time.monotonic() < deadline
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if member.status() == psutil.STATUS_STOPPED:
                    return family
        time.sleep(0.02)


def wait_until_gone(processes: list[psutil.Process], seconds: float = 60) -> None:
    """Resume these processes, however often each stops itself, until they have ended."""
    deadline = time.monotonic() + seconds
    while processes := psutil.wait_procs(processes, timeout=0.05)[1]:
        assert time.monotonic() < deadline, processes
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def kill_when_stopped(process: subprocess.Popen[str], parent_only: bool) -> None:
    """Kill a command that has stopped itself, its workers too unless `parent_only`."""
    family = wait_until_stopped(process)
    if parent_only:
        process.kill()
        wait_until_gone(family[:-1])  # a stopped worker continues, and notices that its parent has ended
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
