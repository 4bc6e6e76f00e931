"""What was found: one finding for each kind, split and stream, with the names that it concerns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from signllava_cli.prepare.validation.checks import CHECKS, SEVERITIES, Severity


@dataclass(frozen=True)
class Finding:
    """One finding. `names` are clips (`recording/clip`), recordings or files, each once; `count` is their number."""

    name: str
    severity: Severity
    split: str | None
    stream: str | None
    count: int
    names: tuple[str, ...]
    what: str
    fix: str
    fixable: bool

    @property
    def where(self) -> str:
        """The split and the stream, as far as the finding belongs to one."""
        return " ".join(part for part in (self.split, self.stream) if part) or "-"


class Findings:
    """Gathers what the checks find."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str | None, str | None], dict[str, None]] = {}
        self._detail: dict[tuple[str, str | None, str | None], str] = {}
        self._fix: dict[tuple[str, str | None, str | None], str] = {}

    def add(
        self,
        name: str,
        names: Iterable[str],
        split: str | None = None,
        stream: str | None = None,
        detail: str = "",
        fix: str = "",
    ) -> None:
        """Count `names` to the finding `name`, and tell the first `detail` with it. No names: nothing is found.

        `fix`: in place of that of the catalogue, where this one can be said exactly.
        """
        listed = dict.fromkeys(names)
        if listed:
            key = (name, split, stream)
            self._names.setdefault(key, {}).update(listed)
            self._detail.setdefault(key, detail)
            self._fix.setdefault(key, fix)

    def sorted(self) -> list[Finding]:
        """The findings, the worst first, then as in the catalogue."""
        rank = {name: index for index, name in enumerate(CHECKS)}
        found = [self._finding(*key) for key in sorted(self._names, key=lambda key: (rank[key[0]], str(key[1:])))]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

    def _finding(self, name: str, split: str | None, stream: str | None) -> Finding:
        ailment, names = CHECKS[name], tuple(self._names[name, split, stream])
        detail = self._detail[name, split, stream].rstrip(".")
        what = f"{ailment.what.rstrip('.')} ({detail})." if detail else ailment.what
        fix = self._fix[name, split, stream] or ailment.fix
        return Finding(name, ailment.severity, split, stream, len(names), names, what, fix, ailment.fixable)


def counts_by_severity(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many findings there are of each severity, the worst first."""
    return {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
