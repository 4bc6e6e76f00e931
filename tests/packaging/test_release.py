"""What a release needs: files that name one version, notes, an installation that is tested, and no stored token."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import release_notes
import yaml
from clean_environment import CONSTRAINTS, ROOT
from oldest_versions import EXTRAS, SELECTION, lowest_versions

from signllava_cli import __version__

WORKFLOWS = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def jobs_of(name: str) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text())["jobs"]
    return jobs


def commands_of(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def test_package_citation_and_changelog_name_one_version() -> None:
    assert set(release_notes.named_versions().values()) == {__version__}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    headings = re.findall(r"^## (.*)", release_notes.CHANGELOG.read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d|Unreleased)", heading) for heading in headings[1:])
    sections = re.findall(r"^### (.*)", release_notes.CHANGELOG.read_text(), re.MULTILINE)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_notes_of_a_release_are_its_section() -> None:
    notes = release_notes.release_notes(f"v{__version__}")
    assert "### Added" in notes
    assert "\n## " not in notes


@pytest.mark.parametrize("tag", ["v9.0.0", "0.1", "vv0.1.0"])
def test_a_tag_of_another_version_is_refused(tag: str) -> None:
    with pytest.raises(SystemExit, match=f"the tag is {tag}, but _version.py names {__version__}"):
        release_notes.release_notes(tag)


def test_an_empty_section_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{__version__}] - Unreleased\n\n## [0.0.1] - x\n")
    monkeypatch.setattr(release_notes, "CHANGELOG", tmp_path / "CHANGELOG.md")
    with pytest.raises(SystemExit, match="has no notes"):
        release_notes.release_notes(f"v{__version__}")


def test_what_is_published_was_built_checked_and_installed_before() -> None:
    jobs = jobs_of("release.yml")
    commands = commands_of(jobs["build"])
    order = ["release_notes.py", "hatchling build", "twine check --strict", "check_wheel.py --dist dist"]
    assert [commands.index(command) for command in order] == sorted(commands.index(command) for command in order)
    assert (jobs["publish"]["needs"], jobs["announce"]["needs"]) == ("build", "publish")
    assert "notes.md" in commands_of(jobs["announce"])


def test_a_release_is_made_of_a_tag_with_the_least_permissions_and_no_stored_token() -> None:
    text = (WORKFLOWS / "release.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as a boolean
    assert workflow["permissions"] == {"contents": "read"}
    permissions = {name: job.get("permissions") for name, job in workflow["jobs"].items()}
    assert permissions == {"build": None, "publish": {"id-token": "write"}, "announce": {"contents": "write"}}
    assert "secrets." not in text
    [publish] = [step for step in workflow["jobs"]["publish"]["steps"] if "pypi-publish" in step["uses"]]
    assert publish["with"] == {"attestations": True}


def test_ci_installs_the_wheel_with_every_python_and_tests_the_lowest_versions() -> None:
    jobs = jobs_of("ci.yml")
    versions = jobs["wheel"]["strategy"]["matrix"]["python-version"]
    classifiers = {f"Programming Language :: Python :: {version}" for version in versions}
    assert classifiers == {each for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert "make wheel-test" in commands_of(jobs["wheel"])
    [torch] = re.findall(r"OLDEST_TORCH=(\S+)", commands_of(jobs["oldest"]))
    assert numbers(torch)[:2] == numbers(lowest_versions()["torch"])[:2]


def test_the_tested_versions_are_not_below_the_lowest() -> None:
    tested = dict(line.lower().replace("_", "-").split("==") for line in CONSTRAINTS.read_text().splitlines()[1:])
    lowest = lowest_versions()
    assert lowest.keys() >= {re.split("[<>=]", each)[0] for each in PROJECT["dependencies"]}
    assert not {name: version for name, version in lowest.items() if numbers(tested[name]) < numbers(version)}
    assert set(EXTRAS) == PROJECT["optional-dependencies"].keys() - {"dev", "docs", "track"}


def test_the_selected_tests_of_the_lowest_versions_exist() -> None:
    for path, _, name in (each.partition("::") for each in SELECTION):
        assert (ROOT / path).exists(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), name
    areas = {Path(each).parts[1] for each in SELECTION}
    assert areas >= {"training", "model", "generation", "data", "prepare", "evaluation", "recipe", "serving"}
