"""The locked dependencies: their licenses are known, and pip-audit knows no vulnerability of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from licenses import PAGE, ROOT, License, format_page, locked_packages, read_license, read_licenses

AUDITED = pytest.mark.reliability("Security", "locked dependencies have known licenses and no known vulnerability")
NO_NETWORK = ("ConnectionError", "Max retries", "NameResolution", "timed out", "ProxyError", "Connection refused")


@AUDITED
def test_the_licenses_of_all_dependencies_are_allowed(record_property: Callable[[str, object], None]) -> None:
    licenses = read_licenses()
    missing = [each.package for each in licenses if each.expression == "not installed"]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert {each.package: each.unknown for each in licenses if each.unknown} == {}
    assert PAGE.read_text(encoding="utf-8") == format_page(licenses), "run python tests/reliability/licenses.py"
    record_property("packages", len(licenses))


@AUDITED
@pytest.mark.parametrize(
    ("expression", "unknown"),
    [
        ("GPL-3.0-only", ["GPL-3.0-only"]),
        ("MIT AND LGPL-2.1-or-later", ["LGPL-2.1-or-later"]),
        ("MIT OR GPL-2.0-only", []),
        ("(MIT AND BSD-3-Clause) OR GPL-2.0-only", []),
        ("unknown", ["unknown"]),
        ("", ["nothing"]),
    ],
)
def test_another_license_is_noticed(expression: str, unknown: list[str]) -> None:
    assert License("a", "1", expression).unknown == unknown


def test_a_package_that_is_not_installed_is_no_license() -> None:
    assert read_license("no-such-package-here", "1").unknown


@AUDITED
@pytest.mark.drill
@pytest.mark.timeout(400)
def test_pip_audit_knows_no_vulnerability(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Skipped without pip-audit (`pipx install pip-audit`), or where its database cannot be reached."""
    command = shutil.which("pip-audit") or shutil.which("pip-audit", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("pip-audit is not installed: pipx install pip-audit")
    packages = list(locked_packages(ROOT / "constraints.txt"))
    (tmp_path / "lock.txt").write_text("".join(f"{name}=={version}\n" for name, version in packages))
    words = [command, "-r", "lock.txt", "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=380, check=False)
    if not ended.stdout.strip() and any(word in ended.stderr for word in NO_NETWORK):
        pytest.skip("pip-audit cannot reach its database from here")
    reported = json.loads(ended.stdout)["dependencies"]
    skipped = [each["name"] for each in reported if "skip_reason" in each]
    if len(skipped) == len(packages):
        pytest.skip("the package index that can be reached from here has no advisories")
    vulnerable = {each["name"]: [found["id"] for found in each["vulns"]] for each in reported if each.get("vulns")}
    assert not vulnerable
    assert not skipped
    assert len(reported) == len(packages)
    record_property("audited packages", len(reported))
