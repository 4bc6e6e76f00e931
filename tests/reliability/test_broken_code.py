"""broken_code.yaml has a change for each promise of `make drills`; broken_code.py tries them."""

import re
from pathlib import Path

import pytest
from broken_code import ROOT, Change, read_changes, read_exceptions

MARKERS = re.compile(r'mark\.reliability\(\s*"[^"]+",\s*"([^"]+)"', re.DOTALL)


def promises(file: Path) -> set[str]:
    return set(MARKERS.findall(file.read_text(encoding="utf-8")))


def test_each_promise_is_broken_once() -> None:
    found = set().union(*(promises(file) for file in (ROOT / "tests").rglob("test_*.py")))
    assert len(found) > 50
    assert found == {change.promise for change in read_changes()} | read_exceptions().keys()


@pytest.mark.parametrize("change", read_changes(), ids=lambda change: change.promise[:40])
def test_a_change_can_be_made_and_its_test_holds_the_promise(change: Change) -> None:
    code = (ROOT / change.file).read_text(encoding="utf-8")
    assert change.applied_to(code) != code
    file, _, name = change.test.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert change.promise in promises(ROOT / file)
    assert not name or f"def {name}(" in text
