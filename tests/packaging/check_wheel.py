"""Builds wheel and sdist, installs the wheel outside of the repository, and runs it from an empty folder.

    python3 tests/packaging/check_wheel.py [--dist dist] [--without-torch]

It fails if a command fails, if a file of the repository is opened, or if the sdist builds another wheel. It needs a
package index, and no other package than Python itself. `--without-torch` is for an interpreter for which no torch can
be had: then only what needs no LLM runs.
"""

import argparse
import hashlib
import platform
import re
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

from clean_environment import CONSTRAINTS, ROOT, CleanEnvironment, make_environment, print_rows, size_of

NEED_TORCH = {"torch", "accelerate", "bitsandbytes", "peft"}
DEMO_SECONDS = 1500
# Installed into the clean environment: writes down each file and folder of the repository that any process opens.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.abspath(os.fspath(arguments[0]))
        if path == {root!r} or path.startswith({root!r} + os.sep):
            file = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, (path + chr(10)).encode())
            os.close(file)

sys.addaudithook(watch)
"""
NO_LLM_NEEDED = """
from signllava_cli.cli.main import app
import signllava_cli.recipe, signllava_cli.evaluation.evaluate, signllava_cli.prepare.toy_corpus
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, help="keep wheel and sdist in this folder; what is there is tested")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the clean environment")
    parser.add_argument("--without-torch", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signllava-wheel-") as folder:
        check_wheel(Path(folder), options.dist, options.python, options.without_torch)


def check_wheel(folder: Path, dist: Path | None, python: str, without_torch: bool) -> None:
    """Build, install, run and measure, in `folder`."""
    builder = make_environment(folder / "builder", python)
    builder.install("hatchling")
    dist = (dist or folder / "dist").absolute()
    if not list(dist.glob("*.whl")):
        build(builder, ROOT, dist)
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    require_same_wheel(builder, sdist, wheel, folder / "from-sdist")

    environment = make_environment(folder / "clean", python)
    pip_size = size_of(environment.site_packages)
    install_seconds = install_wheel(environment, wheel, without_torch)
    install_size = size_of(environment.site_packages) - pip_size
    log = watch_repository(environment, folder / "opened.txt")
    start_time = time.monotonic()
    run_without_llm(environment)
    if not without_torch:
        run_demo(environment)
    if log.exists():
        opened = sorted(set(log.read_text().splitlines()))
        raise SystemExit(f"files of the repository were opened: {', '.join(opened[:10])}")
    version = environment.run("python", "--version").strip()
    print_rows(
        {
            "machine": f"{platform.machine()}, {version}{', without torch' if without_torch else ''}",
            "wheel": f"{wheel.name}, {wheel.stat().st_size / 1e6:.2f} MB",
            "sdist": f"{sdist.name}, {sdist.stat().st_size / 1e6:.2f} MB; builds the same wheel",
            "installed": f"{install_size / 1e6:,.0f} MB in {install_seconds:.0f} s",
            "commands" if without_torch else "commands and demo": f"{time.monotonic() - start_time:.0f} s",
        }
    )


def build(builder: CleanEnvironment, source: Path, dist: Path, *targets: str) -> None:
    """Build wheel and sdist, or the named targets, of a source tree."""
    words = [word for target in targets for word in ("--target", target)]
    script = "import os, sys; os.chdir(sys.argv.pop(1)); from hatchling.cli import hatchling; sys.exit(hatchling())"
    builder.run("python", "-c", script, source, "build", "--directory", dist, *words)


def require_same_wheel(builder: CleanEnvironment, sdist: Path, wheel: Path, folder: Path) -> None:
    """The wheel that the sdist builds has the same bytes."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [source] = folder.iterdir()
    build(builder, source, folder / "dist", "wheel")
    [other] = (folder / "dist").iterdir()
    if other.name != wheel.name or sha256(other) != sha256(wheel):
        raise SystemExit(f"{sdist.name} builds another {other.name} than the repository")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def install_wheel(environment: CleanEnvironment, wheel: Path, without_torch: bool) -> float:
    """Install the wheel with the tested versions; the seconds that it took."""
    if not without_torch:
        [torch] = re.findall(r"^torch==\S+", CONSTRAINTS.read_text(), re.MULTILINE)
        return environment.install(torch) + environment.install(wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", each)[0] for each in project["dependencies"]]
    return environment.install(*(name for name in names if name not in NEED_TORCH)) + environment.install(
        "--no-deps", wheel
    )


def watch_repository(environment: CleanEnvironment, log: Path) -> Path:
    """Write each file of the repository that a process of the environment opens into `log`; `log`."""
    (environment.site_packages / "repository_watch.py").write_text(WATCH.format(root=str(ROOT), log=str(log)))
    (environment.site_packages / "repository_watch.pth").write_text("import repository_watch\n")
    environment.run("python", "-c", "import sys; open(sys.argv[1]).close()", ROOT / "pyproject.toml")
    if not log.exists() or "pyproject.toml" not in log.read_text():
        raise SystemExit("the watch does not notice that a file of the repository is opened")
    log.unlink()
    return log


def run_without_llm(environment: CleanEnvironment) -> None:
    """The commands that need no LLM, and all modules compiled without a warning."""
    package = environment.site_packages / "signllava_cli"
    environment.run("python", "-W", "error", "-m", "compileall", "-q", "-f", package)
    environment.run("python", "-c", NO_LLM_NEEDED)
    assert "generate" in environment.run("signllava", "--help")
    shipped = {file.relative_to(ROOT / "recipes").with_suffix("") for file in (ROOT / "recipes").rglob("*.yaml")}
    listed = environment.run("signllava", "recipes", "list").split()
    files = {Path("variants", name[1:]) if name.startswith("+") else Path(name) for name in listed}
    assert files == shipped, listed
    for name in listed:
        environment.run("signllava", "recipes", "show", f"pretrain{name}" if name.startswith("+") else name)
    environment.run("signllava", "prepare", "toy", "--out", "toy")
    environment.run("signllava", "prepare", "check", "toy")
    (environment.empty / "hypotheses.txt").write_text("the garden is big .\nmy sister visits .\n")
    (environment.empty / "references.txt").write_text("the garden is big .\nmy brother visits .\n")
    scores = environment.run("signllava", "eval", "--hyp", "hypotheses.txt", "--ref", "references.txt")
    assert "BLEU" in scores, scores


def run_demo(environment: CleanEnvironment) -> None:
    """The machine, and all steps of a study on the tiny LLM."""
    assert "torch 2." in environment.run("signllava", "env")
    printed = environment.run("signllava", "demo", "--llm", "tiny", seconds=DEMO_SECONDS)
    assert (environment.empty / "runs" / "demo" / "summary.json").is_file(), printed


if __name__ == "__main__":
    main()
