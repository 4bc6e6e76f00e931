"""The findings of a validation: one for each failed check, split and stream, with the names that it concerns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from signllava_cli.prepare.validation.checks import CHECKS, SEVERITIES, Severity


@dataclass(frozen=True)
class Finding:
    """A failed check. `names`: clips (`recording/clip`), recordings or files, each once; `count`: their number."""

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
        """The split and the stream, if the finding belongs to one; else `-`."""
        return " ".join(part for part in (self.split, self.stream) if part) or "-"


class Findings:
    """Collects the findings of all checks."""

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
        """Add `names` to the finding of check `name`. Without names there is no finding.

        `detail`: shown with the finding; the first one is kept. `fix`: a more exact one than that of the check.
        """
        unique_names = dict.fromkeys(names)
        if unique_names:
            key = (name, split, stream)
            self._names.setdefault(key, {}).update(unique_names)
            self._detail.setdefault(key, detail)
            self._fix.setdefault(key, fix)

    def sorted(self) -> list[Finding]:
        """The findings by severity, then in the order of `CHECKS`."""
        rank = {name: index for index, name in enumerate(CHECKS)}
        findings = [
            self._make_finding(*key) for key in sorted(self._names, key=lambda key: (rank[key[0]], str(key[1:])))
        ]
        return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

    def _make_finding(self, name: str, split: str | None, stream: str | None) -> Finding:
        check, names = CHECKS[name], tuple(self._names[name, split, stream])
        detail = self._detail[name, split, stream].rstrip(".")
        what = f"{check.what.rstrip('.')} ({detail})." if detail else check.what
        fix = self._fix[name, split, stream] or check.fix
        return Finding(name, check.severity, split, stream, len(names), names, what, fix, check.fixable)


def counts_by_severity(findings: Sequence[Finding]) -> dict[Severity, int]:
    """The number of findings of each severity, the worst severity first."""
    return {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
