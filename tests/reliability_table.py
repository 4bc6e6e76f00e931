"""The table of the tests with the marker `reliability`: what was tried, how often, and whether the promise was kept.

`@pytest.mark.reliability("Faults", "a killed rank ends the others")` names the area and the promise of a test; tests
of one promise share a row. A test counts what it tried with pytest's fixture `record_property`, as in
`record_property("kills", 20)`; the counts of a row are added up. `make drills` runs these tests and writes the table
into docs/reliability.md.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START, END = "<!-- table of make drills -->\n", "<!-- end of the table -->\n"


@dataclass
class Row:
    """The tests of one promise."""

    outcomes: list[str] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":  # else the set-up and tear-down of a test that passed
            self.outcomes.append(report.outcome)
        if report.when == "call":
            for name, value in report.user_properties:
                if isinstance(value, int | float):
                    self.counts[name] = self.counts.get(name, 0) + value

    @property
    def result(self) -> str:
        if "failed" in self.outcomes:
            return f"**{self.outcomes.count('failed')} of {len(self.outcomes)} failed**"
        return "skipped" if "passed" not in self.outcomes else "kept"

    @property
    def tried(self) -> str:
        counts = {"passed tests": self.outcomes.count("passed"), **self.counts}
        return ", ".join(
            f"{value:,.0f} {name}" if value == int(value) else f"{value:,.3g} {name}"
            for name, value in counts.items()
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability-table", type=Path, metavar="FILE", help="the page whose table is written anew")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("reliability")
    if marker and not any(name == "reliability" for name, _ in item.user_properties):
        area, promise = marker.args
        item.user_properties.append(("reliability", [area, promise]))


def collect_rows(reports: Iterable[pytest.TestReport]) -> dict[tuple[str, str], Row]:
    rows: dict[tuple[str, str], Row] = {}
    for report in reports:
        key = dict(report.user_properties).get("reliability")
        if isinstance(key, list | tuple):
            rows.setdefault((key[0], key[1]), Row()).add(report)
    return dict(sorted(rows.items()))


def format_table(rows: dict[tuple[str, str], Row]) -> str:
    lines = ["| area | promise | tried | result | seconds |", "| --- | --- | --- | --- | ---: |"]
    for (area, promise), row in rows.items():
        lines.append(f"| {area} | {promise} | {row.tried} | {row.result} | {row.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path, table: str) -> None:
    """Replace what stands between the two comments of a page."""
    text = page.read_text(encoding="utf-8")
    pattern = re.escape(START) + ".*?" + re.escape(END)
    written, number = re.subn(pattern, lambda _: f"{START}\n{table}\n{END}", text, flags=re.DOTALL)
    if number != 1:
        raise pytest.UsageError(f"{page} has not one table between {START.strip()} and {END.strip()}")
    page.write_text(written, encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    page = config.getoption("--reliability-table")
    reports = [report for key in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(key, [])]
    rows = collect_rows(report for report in reports if isinstance(report, pytest.TestReport))
    if page and rows:
        table = format_table(rows)
        terminalreporter.section("reliability")
        terminalreporter.write(table)
        write_table(page, table)
