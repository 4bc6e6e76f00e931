"""Prints findings: as a table on a terminal, else as plain lines."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from signllava_cli.console import is_json, print_line, stdout_console
from signllava_cli.errors import MAX_NAMES, escape_unprintable, summarize_names
from signllava_cli.prepare.validation.findings import Finding, counts_by_severity

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding with its first names and its fix."""
    if stdout_console.is_terminal and not is_json():
        if findings:
            stdout_console.print(_table(findings))
        return
    for finding in findings:
        where = escape_unprintable(finding.where)
        print_line(f"{finding.severity}  {finding.name}  {where}  {finding.count}: {format_names(finding)}")
        print_line(f"    {escape_unprintable(finding.what)} {_format_fix(finding)}")


def summary(findings: Sequence[Finding], seconds: float) -> str:
    """How many findings of each severity there are, and how long the validation took.

    >>> summary([], 1.24)
    '0 errors, 0 warnings, 0 notes in 1.2 s'
    """
    counts = counts_by_severity(findings)
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()) + (
        f" in {seconds:.1f} s"
    )


def format_names(finding: Finding) -> str:
    """The first names of a finding, and the number of the others."""
    return summarize_names(finding.names[:MAX_NAMES], finding.count)


def _format_fix(finding: Finding) -> str:
    return f"{finding.fix} (--fix)" if finding.fixable else finding.fix


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(show_lines=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("names, problem, and fix", overflow="fold")
    for finding in findings:
        style = _STYLES[finding.severity]
        table.add_row(
            Text.assemble(
                (finding.severity, style), "\n", (finding.name, "bold"), "\n", escape_unprintable(finding.where)
            ),
            Text(f"{finding.count:,}"),
            Text.assemble(
                format_names(finding),
                "\n",
                escape_unprintable(finding.what),
                "\n",
                (_format_fix(finding), "italic green"),
            ),
        )
    return table
