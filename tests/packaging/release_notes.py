"""Prints the notes of a version from CHANGELOG.md, if the tag and all files name this version.

python tests/packaging/release_notes.py v0.1.0 > notes.md
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"


def named_versions() -> dict[str, str]:
    """The version that each file names; of CHANGELOG.md, the newest."""
    module = (ROOT / "signllava_cli" / "_version.py").read_text()
    return {
        "_version.py": re.findall(r'^__version__ = "(.+)"$', module, re.MULTILINE)[0],
        "CITATION.cff": str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]),
        "CHANGELOG.md": re.findall(r"^## \[(\d\S*)\]", CHANGELOG.read_text(), re.MULTILINE)[0],
    }


def release_notes(tag: str) -> str:
    """The section of a version, without its heading.

    Raises:
        SystemExit: a file names another version than the tag, or the section is empty.
    """
    version = tag.removeprefix("v")
    others = {file: named for file, named in named_versions().items() if named != version}
    if others:
        files = ", ".join(f"{file} names {named}" for file, named in others.items())
        raise SystemExit(f"the tag is {tag}, but {files}")
    parts = re.split(r"^## \[(.+?)\].*$", CHANGELOG.read_text(), flags=re.MULTILINE)
    notes = parts[parts.index(version) + 1].strip()
    if not notes:
        raise SystemExit(f"CHANGELOG.md has no notes of {version}")
    return notes


if __name__ == "__main__":
    print(release_notes(sys.argv[1]))
