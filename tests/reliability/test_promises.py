"""SECURITY.md names each promise of the area Security that tests hold, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_security_md_names_the_promises_of_the_tests() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    held = {promise for text in sources for promise in re.findall(r'reliability\(\s*"Security",\s*"([^"]+)"', text)}
    table = re.findall(r"^\| ([^|]+) \|", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    promised = set(table) - {"promise", "---"}
    assert promised == held
    assert len(held) > 5
