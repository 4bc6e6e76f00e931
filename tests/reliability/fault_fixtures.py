"""The fixtures of faults.py; a test module names them with `pytest_plugins`."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultedCommands, Faults, build_shim

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shim(made_once: MadeOnce) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    return made_once("fault_shim", build_shim)


@pytest.fixture
def faults(shim: Path, tmp_path: Path) -> Faults:
    (tmp_path / "faults").mkdir()
    return Faults(shim, tmp_path / "faults")


@pytest.fixture(scope="session")
def started_commands(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FaultedCommands]]:
    folder = tmp_path_factory.mktemp("faults")
    started = [FaultedCommands(Faults(shim, folder), folder)]
    yield started
    started[-1].close()


@pytest.fixture
def commands(started_commands: list[FaultedCommands], shim: Path, tmp_path: Path) -> FaultedCommands:
    """Started once for all tests, and again after a command that did not end."""
    if started_commands[-1].has_ended():
        started_commands.append(FaultedCommands(Faults(shim, tmp_path), tmp_path))
    started_commands[-1].faults.set()
    return started_commands[-1]
