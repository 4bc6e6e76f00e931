"""The pages of the documentation: their headings, links and shell blocks."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG", "benchmarks/README")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# What a line of a shell block begins with; a block without such a line shows files or output.
PROGRAM = (
    r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:signllava|make|pipx?|python3?|accelerate|torchrun|for \w+ in .*; do"
    r"|mv|curl|sbatch|hf|git|cd|apt-get|printf)(?: |$)"
)
SHELL_LANGUAGES = {"sh", "bash", "console", "shell"}
MARKER = re.compile(r"<!-- not run: (.*?) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class ShellBlock:
    """Commands on a page. `reason`: why no test runs them, from a comment `<!-- not run: REASON -->` above."""

    page: str
    line: int
    script: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    """A page without its fenced and indented blocks and without comments; the number of lines stays."""
    text = re.sub(r"^( *)```.*?^\1```$", _blank, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<=\n)\n(?: {4}.*\n|\n)+", _blank, "\n" + text)[1:]
    return re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.*)", without_code(page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def links(page: Path) -> list[str]:
    """The targets of the links and pictures of a page, other sites excepted."""
    text = re.sub(r"`[^`\n]+`", "", without_code(page.read_text()))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def shell_blocks(page: Path) -> list[ShellBlock]:
    """The fenced and indented blocks of a page that hold commands."""
    text = page.read_text()
    blocks: list[ShellBlock] = []

    def add(at: int, script: str) -> None:
        marker = MARKER.search(text[:at])
        line = text.count("\n", 0, at) + 1
        blocks.append(ShellBlock(name_of(page), line, script, marker[1] if marker else None))

    def fenced(match: re.Match[str]) -> str:
        if match[1] in SHELL_LANGUAGES:
            add(match.start(), match[2])
        return re.sub(r"[^\n]", "", match[0])

    rest = re.sub(r"^```(\w*)\n(.*?)^```$", fenced, text, flags=re.MULTILINE | re.DOTALL)
    # Positions in `rest` are others than in `text`, lines are the same.
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for match in re.finditer(r"(?:(?<=\n\n)|\A)(?: {4}.*\n|\n(?= {4}))+", rest):
        script = textwrap.dedent(match[0])
        if any(re.match(PROGRAM, line) for line in script.splitlines()):
            add(starts[rest.count("\n", 0, match.start())], script)
    return sorted(blocks, key=lambda block: block.line)


def shell_block(page: str, mark: str) -> str:
    """The commands of the one block of `page` that holds `mark`, without installations.

    `test_shell_blocks.py` looks for the calls of this function, to know which blocks the tests run.
    """
    [block] = [block for block in shell_blocks(ROOT / page) if mark in block.script]
    return "".join(line for line in block.script.splitlines(True) if not line.startswith("pip install"))


def signllava_commands(script: str) -> Iterator[list[str]]:
    """The words of each `signllava` command of a script, without the word `signllava`; redirections are cut off."""
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        for command in re.split(r"; |&&|(?:^|\s)do |\$ |\|(?= )", line):
            words = shlex.split(command, comments=True)
            words = words[words.index("signllava_cli") :] if "signllava_cli" in words else words
            if words and words[0] in ("signllava", "signllava_cli"):
                ends = [number for number, word in enumerate(words) if re.match(r"\d?>", word)]
                yield words[1 : min(ends, default=len(words))]
