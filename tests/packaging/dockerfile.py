"""Reads the Dockerfile of the repository: its stages, and what each instruction says."""

import json
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from clean_environment import ROOT


@dataclass(frozen=True)
class Instruction:
    """Such as COPY with `constraints.txt /constraints.txt`; `stage` counts from 0."""

    stage: int
    name: str
    text: str

    @property
    def sources(self) -> list[str]:
        """What a COPY takes from the context; nothing of one that takes from another stage."""
        words = shlex.split(self.text)
        return [] if words[0].startswith("--from") else words[:-1]


def read_dockerfile() -> list[Instruction]:
    """The instructions, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    instructions: list[Instruction] = []
    stage = -1
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        stage += name == "FROM"
        instructions.append(Instruction(max(stage, 0), name, rest.strip()))
    return instructions


def arguments() -> dict[str, str]:
    """The default of each ARG."""
    return dict(each.text.split("=") for each in read_dockerfile() if each.name == "ARG")


def entrypoint() -> list[str]:
    [instruction] = [each for each in read_dockerfile() if each.name == "ENTRYPOINT"]
    words: list[str] = json.loads(instruction.text)
    return words


def is_in_context(path: str) -> bool:
    """Whether .dockerignore leaves a file to the context: the last pattern that matches it or a folder of it."""
    parents = [path, *(str(folder) for folder in Path(path).parents if str(folder) != ".")]
    is_kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            candidates = [part for each in parents for part in (each, Path(each).name if "**/" in line else each)]
            if any(fnmatch(each, pattern) for each in candidates):
                is_kept = line.startswith("!")
    return is_kept
