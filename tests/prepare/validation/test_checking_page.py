"""docs/checking.md lists every check."""

from pathlib import Path

from signllava_cli.prepare.validation.checks import CHECKS

PAGE = Path(__file__).parents[3] / "docs/checking.md"


def test_the_page_lists_every_check() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{check.name}` | {check.severity} | {check.what} | {check.fix}{' `--fix`' if check.fixable else ''} |"
        for check in CHECKS.values()
    ]
