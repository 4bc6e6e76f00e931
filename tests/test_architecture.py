"""The layout of the package: imports point downward, cli/ imports no torch, files stay small, names are unique."""

import ast
import itertools
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "signllava_cli"
BASE = {
    "_version",
    "errors",
    "console",
    "files",
    "heartbeat",
    "network",
    "plotting",
    "preemption",
    "processes",
    "recipe",
    "redaction",
}
LAYERS = ["data", "model", "prepare", "generation", "evaluation", "training", "api", "serving", "cli"]
STARTERS = {"launch", "demo", "study", "machine_checks"}  # start commands; only cli/ imports them
FILES = sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(("signllava_cli", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """The names that a file imports, those behind `if TYPE_CHECKING` included."""
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
    package = package_of(path)
    imported = {name.split(".")[1] for name in imports(path) if name.startswith("signllava_cli.")} - {package}
    if package in LAYERS:
        allowed = BASE | set(LAYERS[: LAYERS.index(package)])
        assert imported <= (allowed | STARTERS if package == "cli" else allowed)
    elif package in BASE:
        assert imported <= BASE
    else:
        assert "cli" not in imported or package == "__main__"


def test_no_module_imports_itself_through_others() -> None:
    modules = {module_of(path): path for path in FILES}
    graph = {module: imports(path) & modules.keys() - {module} for module, path in modules.items()}
    packages = {module for module, path in modules.items() if path.name == "__init__.py"}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for imported in sorted(graph[module] - packages):
                visit(imported, (*path, module))
            done.add(module)

    for module in sorted(graph.keys() - packages):
        visit(module, ())


def test_no_two_modules_share_a_name() -> None:
    """Except commands, which are called like what they run."""
    names = Counter(path.stem for path in FILES if path.name != "__init__.py" and package_of(path) != "cli")
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_hold_one_idea(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_data_as_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "dill", "marshal", "shelve"}


def test_a_clip_enters_each_package_once() -> None:
    """The packages that a translation passes, in the order in which they import each other, only ever descend."""
    walk = ["cli/generate.py", "generation/generate.py", "model/loading.py", "data/prompts.py"]
    layers = [LAYERS.index(package_of(PACKAGE / name)) for name in walk]
    assert layers == sorted(layers, reverse=True)
    for upper, lower in itertools.pairwise(walk):
        target = "signllava_cli." + lower.removesuffix(".py").replace("/", ".")
        assert target in imports(PACKAGE / upper), f"{upper} does not import {lower}"
