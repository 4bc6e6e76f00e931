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


@pytest.fixture
def commands(faults: Faults, tmp_path: Path) -> Iterator[FaultedCommands]:
    running = FaultedCommands(faults, tmp_path / "faults")
    yield running
    running.close()
