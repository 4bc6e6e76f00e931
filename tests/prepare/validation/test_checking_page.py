"""docs/checking.md tells every finding, as the catalogue has it."""

from pathlib import Path

from signllava_cli.prepare.validation.checks import CHECKS

PAGE = Path(__file__).parents[3] / "docs/checking.md"


def test_the_page_lists_the_catalogue() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{each.name}` | {each.severity} | {each.what} | {each.fix}{' `--fix`' if each.fixable else ''} |"
        for each in CHECKS.values()
    ]
