"""Finds files in the folders of `prepare pack` that no clip of the split has, and those whose case differs."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from signllava_cli.data.clip_source import ClipSource
from signllava_cli.prepare.pack.request import PackRequest


@dataclass(frozen=True)
class UnusedFiles:
    """`other_case`: clip without a file -> a file whose name differs in case only. `of_no_clip`: all others."""

    other_case: dict[str, str] = field(default_factory=dict)
    of_no_clip: list[str] = field(default_factory=list)


def find_unused_files(
    request: PackRequest, sources: Iterable[ClipSource], missing: Mapping[str, list[str]]
) -> UnusedFiles:
    """The unused files.

    Args:
        sources: the arrays that were found.
        missing: clip -> the files that were searched for it.
    """
    names_in: dict[str, dict[str, str]] = {}  # folder -> name in lower case -> name

    def find(file: str) -> str | None:
        folder, name = os.path.split(file)
        if folder not in names_in:
            names_in[folder] = {each.casefold(): each for each in _list_names(folder)}
        other_name = names_in[folder].get(name.casefold())
        return other_name and os.path.join(folder, other_name)

    found = {clip: next(filter(None, map(find, files)), None) for clip, files in missing.items()}
    other_case = {clip: file for clip, file in found.items() if file}
    used = {*(str(source.file) for source in sources), *other_case.values()}
    folders = [source for source in request.sources if source.is_dir()] if request.pattern is None else []
    files = [os.path.join(folder, name) for folder in folders for name in sorted(_list_names(str(folder)))]
    return UnusedFiles(other_case, [file for file in files if file not in used and request.reads(Path(file))])


def _list_names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # reported by the search for the clips, unless it does not exist
        return []
