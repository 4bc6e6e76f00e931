"""The findings on a terminal, as a table; elsewhere as plain lines."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from signllava_cli.console import say, screen
from signllava_cli.data.doctor.findings import Finding, counts_by_severity
from signllava_cli.errors import NAMES_SHOWN, first_names, printable

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show_findings(findings: Sequence[Finding]) -> None:
    """Print each finding with its first names and its mend, the worst first."""
    if screen.is_terminal:
        if findings:
            screen.print(_table(findings))
        return
    for finding in findings:
        say(
            f"{finding.severity}  {finding.name}  {printable(finding.where)}  {finding.count}: {shown_names(finding)}"
        )
        say(f"    {printable(finding.what)} {_mend(finding)}")


def summary(findings: Sequence[Finding], seconds: float) -> str:
    """How many findings of each severity there are, and how long it took to find them.

    >>> summary([], 1.24)
    '0 errors, 0 warnings, 0 notes in 1.2 s'
    """
    counts = counts_by_severity(findings)
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()) + (
        f" in {seconds:.1f} s"
    )


def shown_names(finding: Finding) -> str:
    """The first names of a finding, and how many more there are."""
    return first_names(finding.names[:NAMES_SHOWN], finding.count)


def _mend(finding: Finding) -> str:
    return f"{finding.mend} (--fix)" if finding.fixable else finding.mend


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(show_lines=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("which, what, and the mend", overflow="fold")
    for finding in findings:
        style = _STYLES[finding.severity]
        table.add_row(
            Text.assemble((finding.severity, style), "\n", (finding.name, "bold"), "\n", printable(finding.where)),
            Text(f"{finding.count:,}"),
            Text.assemble(
                shown_names(finding), "\n", printable(finding.what), "\n", (_mend(finding), "italic green")
            ),
        )
    return table
