"""The floor plan holds: imports point downward, cli imports no torch, files stay small."""

import ast
import itertools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "signllava_cli"
FLOORS = ["data", "model", "generation", "evaluation", "training", "api", "serving", "cli"]
BASEMENT = {"recipe", "console", "errors", "files", "preemption", "processes"}
ABOVE_THE_FLOORS = {"launch", "demo"}  # start commands; only cli imports them
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, inside_functions: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside_functions else tree.body
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imports(path, True) if name.startswith("signllava_cli.")}
    rooms -= {room, "__version__"}
    if room in FLOORS:
        allowed = BASEMENT | set(FLOORS[: FLOORS.index(room)])
        assert rooms <= (allowed | ABOVE_THE_FLOORS if room == "cli" else allowed)
    elif room in BASEMENT:
        assert rooms <= BASEMENT
    else:
        assert "cli" not in rooms or room == "__main__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_hold_one_idea(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_runs_data_as_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imports(path, True)} & {"pickle", "dill", "marshal", "shelve"}


def test_a_clip_enters_each_folder_once() -> None:
    """The rooms that a translation passes, in the order in which they import each other, only ever descend."""
    walk = ["cli/generate.py", "generation/generate.py", "model/assembly.py", "data/prompts.py"]
    floors = [FLOORS.index(room_of(PACKAGE / name)) for name in walk]
    assert floors == sorted(floors, reverse=True)
    for upper, lower in itertools.pairwise(walk):
        target = "signllava_cli." + lower.removesuffix(".py").replace("/", ".")
        reached = imports(PACKAGE / upper, True)
        assert target in reached, f"{upper} does not lead to {lower}"
