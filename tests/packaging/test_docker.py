"""The Dockerfile copies what exists, installs the tested versions, and its steps make a command that runs."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from clean_environment import CONSTRAINTS, ROOT, make_environment
from dockerfile import arguments, entrypoint, is_in_context, read_dockerfile

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def copied() -> list[str]:
    return [source for each in read_dockerfile() if each.name == "COPY" for source in each.sources]


def test_everything_that_is_copied_is_in_the_context() -> None:
    assert len(copied()) >= 6
    for source in copied():
        files = [ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*.*")
        paths = [str(file.relative_to(ROOT)) for file in files if file.is_file() and file.suffix != ".pyc"]
        assert paths, source
        assert all(map(is_in_context, paths)), source


@pytest.mark.parametrize(
    "path",
    [".git/config", "runs/demo/summary.json", "data/toy/annotation.train.json", ".venv/bin/python", "tests/a.py"],
)
def test_no_data_run_or_environment_is_in_the_context(path: str) -> None:
    assert not is_in_context(path)


def test_no_compiled_file_is_in_the_context() -> None:
    assert not is_in_context("signllava_cli/__pycache__/console.cpython-311.pyc")


def test_what_the_wheel_is_built_of_is_copied() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(copied()) >= {
        *build["packages"],
        *build["force-include"],
        PROJECT["readme"],
        *PROJECT["license-files"],
    }


def test_versions_extras_and_command_are_those_of_the_project() -> None:
    values = arguments()
    assert f"torch=={values['TORCH']}" in CONSTRAINTS.read_text().splitlines()
    assert set(values["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert f"Programming Language :: Python :: {values['PYTHON']}" in PROJECT["classifiers"]
    assert set(entrypoint()) == PROJECT["scripts"].keys()
    installs = [each.text for each in read_dockerfile() if "pip install" in each.text]
    assert all(text.count("pip install") == text.count("--constraint /constraints.txt") for text in installs)


def test_the_command_does_not_run_as_root() -> None:
    assert [each.text for each in read_dockerfile() if each.name == "USER"] == ["1000"]


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    [install] = [each.text for each in read_dockerfile() if "DEVICE" in each.text and each.name == "RUN"]
    variables = {"DEVICE": "gpu", "PATH": str(tmp_path)}
    ended = subprocess.run(["/bin/sh", "-c", install], env=variables, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "DEVICE=gpu: expected cpu or cuda\n")


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_the_steps_of_the_image_make_a_command_that_runs(tmp_path: Path) -> None:
    """Its COPY and pip steps, with a folder instead of an image's root; without Debian's packages and the user.

    A package index is needed. The index of PyTorch is not: where it cannot be reached, pip finds torch elsewhere.
    """
    environment = make_environment(tmp_path / "environment", sys.executable)
    root, workdir = tmp_path / "root", "/"
    values = arguments()
    for each in read_dockerfile():
        if each.name == "WORKDIR":
            workdir = each.text
            (root / workdir[1:]).mkdir(parents=True, exist_ok=True)
        elif each.name == "COPY":
            *sources, target = [word for word in shlex.split(each.text) if not word.startswith("--")]
            for source in sources if each.sources else ():
                to = root / target[1:] if target.startswith("/") else root / workdir[1:] / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to)
                else:
                    shutil.copy(ROOT / source, to)
        elif each.name == "RUN" and "pip " in each.text:
            script = re.sub(r"(?<=[ (])/(?=dist|constraints)", f"{root}/", each.text)
            variables = {"PIP_FIND_LINKS": "/opt/wheels", **values}
            try:
                environment.run("sh", "-c", f"cd {root / workdir[1:]} && {script}", seconds=1500, **variables)
            except SystemExit as failure:
                if re.search("ConnectionError|Max retries|NameResolution|No matching distribution", str(failure)):
                    pytest.skip("no package index can be reached from here")
                raise
    assert "torch" in environment.run(*entrypoint(), "env")
    assert "toy/tiny_pretrain" in environment.run(*entrypoint(), "recipes", "list")
