"""Finds each clip's array: one listing per folder and per HDF5 file, whatever the number of clips."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py

from signllava_cli.data.annotations import Clip
from signllava_cli.data.packing.clip_file import ClipFile, Unreadable
from signllava_cli.data.packing.open_hdf5 import OpenHdf5
from signllava_cli.data.packing.request import (
    CAN_RUN_CODE,
    KEYED_FORMATS,
    OUR_LAYOUT,
    PackRequest,
    may_run_code,
)
from signllava_cli.errors import UserError, first_names

FOLDERS_REMEMBERED = 64  # clips come recording by recording


@dataclass(frozen=True)
class FoundClips:
    """What the sources hold of the annotated clips, by `recording/clip`, in annotation order.

    `unusable` were found but cannot be used, and why; `missing` have no file.
    """

    files: dict[str, ClipFile]
    unusable: dict[str, str]
    missing: list[str]

    def digest(self) -> str:
        """SHA-256 over where each clip lies, and the size and time of its file."""
        digest = hashlib.sha256()
        stamps: dict[Path, str] = {}
        for clip, source in self.files.items():
            if source.file not in stamps:
                stamps[source.file] = _stamp(source.file)
            digest.update(f"{clip}\0{source.file}\0{stamps[source.file]}\0{source.key}\0{source.format}\n".encode())
        digest.update("\n".join([*self.unusable, "", *self.missing]).encode())
        return digest.hexdigest()


def _stamp(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # a link to nowhere: its clip will be faulty
        return ""
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def find_clips(request: PackRequest, clips: Iterable[Clip]) -> FoundClips:
    """Look for the array of each of `clips` in all sources.

    A clip that two sources hold, or an array that two clips would share, is not chosen from.

    Raises:
        UserError: a source is no HDF5 file, or --key is given and no file has keys.
    """
    files: dict[str, ClipFile] = {}
    unusable: dict[str, str] = {}
    missing: list[str] = []
    with OpenHdf5() as handles:
        searches = _searches(request, handles)
        for clip in clips:
            try:
                found = [source for search in searches if (source := search(clip))]
                if len(found) > 1:
                    raise Unreadable(f"stands in {found[0].file} and in {found[1].file}")
            except Unreadable as fault:
                unusable[clip.id] = str(fault)
                continue
            if found:
                files[clip.id] = found[0]
            else:
                missing.append(clip.id)
    if request.key is not None and files and not any(source.format in KEYED_FORMATS for source in files.values()):
        raise UserError(f"--key {request.key}: none of the files found holds several arrays; leave it out.")
    uses = Counter((source.file, source.key) for source in files.values())
    for clip_id, source in list(files.items()):
        if uses[source.file, source.key] > 1:
            del files[clip_id]
            unusable[clip_id] = "another clip would be read from the same array; name {recording} in the pattern"
    return FoundClips(files, unusable, missing)


_Search = Callable[[Clip], ClipFile | None]


def _searches(request: PackRequest, handles: OpenHdf5) -> list[_Search]:
    """One search per folder, and one for all HDF5 files together."""
    names_in = lru_cache(FOLDERS_REMEMBERED)(_names_in)
    searches = [_folder_search(request, source, names_in) for source in request.sources if source.is_dir()]
    hdf5_files = [source for source in request.sources if not source.is_dir()]
    if hdf5_files:
        searches.append(_hdf5_search(request.key or OUR_LAYOUT, hdf5_files, handles))
    return searches


def _folder_search(request: PackRequest, source: Path, names_in: Callable[[str], frozenset[str]]) -> _Search:
    patterns = request.file_patterns

    def search(clip: Clip) -> ClipFile | None:
        for pattern in patterns:
            file = os.path.join(source, pattern.format(recording=clip.recording, clip=clip.name))
            folder, name = os.path.split(file)
            if name in names_in(folder):
                if may_run_code(name):
                    raise Unreadable(f"{file} is not opened: {CAN_RUN_CODE}")
                format = request.format_of(file)
                key = request.key if format in KEYED_FORMATS else None
                return ClipFile(Path(file), format, (key or "").format(recording=clip.recording, clip=clip.name))
        return None

    return search


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _hdf5_search(pattern: str, files: Sequence[Path], handles: OpenHdf5) -> _Search:
    """By the names below the pattern's fixed beginning; a file is asked for the rest only where these fit."""
    parts = pattern.strip("/").split("/")
    fixed = next(depth for depth, part in enumerate(parts) if "{" in part)
    files_of: dict[str, list[Path]] = {}
    for file in files:
        for name in _names_below(handles, file, "/".join(parts[:fixed])):
            files_of.setdefault(name, []).append(file)

    def search(clip: Clip) -> ClipFile | None:
        names = [part.format(recording=clip.recording, clip=clip.name) for part in parts]
        key = "/".join(names)
        holders = files_of.get(names[fixed], [])
        if fixed + 1 < len(parts):
            holders = [file for file in holders if _holds(handles, file, key)]
        if len(holders) > 1:
            raise Unreadable(f"{key} stands in {first_names(map(str, holders))}; name {{recording}} in --key")
        return ClipFile(holders[0], "hdf5", key) if holders else None

    return search


def _holds(handles: OpenHdf5, file: Path, key: str) -> bool:
    try:
        return key in handles.open(file)
    except (OSError, RuntimeError, KeyError) as fault:
        raise Unreadable(f"{file} is damaged: {fault}") from None


def _names_below(handles: OpenHdf5, file: Path, group: str) -> list[str]:
    try:
        found = handles.open(file).get(group or "/")
        return list(found) if isinstance(found, h5py.Group) else []
    except (OSError, RuntimeError, KeyError) as fault:
        raise UserError(
            f"{file} is no whole HDF5 file ({fault}); a SOURCE is a folder of files per clip, or such a file."
        ) from None
