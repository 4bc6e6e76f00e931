"""Finds each clip's array: one listing per folder and per HDF5 file, whatever the number of clips."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import h5py

from signllava_cli.data.annotations import Clip
from signllava_cli.data.clip_arrays import ClipNames
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.prepare.pack.request import (
    DEFAULT_PATTERN,
    KEYED_FORMATS,
    PICKLE_REFUSAL,
    PackRequest,
    is_pickle_name,
)

DEEPEST_EXAMPLE = 8  # groups: a file may link a group into itself
CACHED_FOLDERS = 64  # clips come recording by recording


@dataclass(frozen=True)
class FoundClips:
    """What the sources hold of the annotated clips, by `recording/clip`, in annotation order.

    `unusable` were found but cannot be used, and why; `missing` have no file.
    """

    files: dict[str, ClipSource]
    unusable: dict[str, str]
    missing: list[str]

    def digest(self) -> str:
        """SHA-256 over where each clip lies, and the size and time of its file."""
        digest = hashlib.sha256()
        stamps: dict[Path, str] = {}
        for clip, source in self.files.items():
            if source.file not in stamps:
                stamps[source.file] = _file_fingerprint(source.file)
            digest.update(f"{clip}\0{source.file}\0{stamps[source.file]}\0{source.key}\0{source.format}\n".encode())
        digest.update("\n".join([*self.unusable, "", *self.missing]).encode())
        return digest.hexdigest()


def _file_fingerprint(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # a link to nowhere: its clip will be faulty
        return ""
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def find_clips(request: PackRequest, clips: Sequence[Clip]) -> FoundClips:
    """Look for the array of each of `clips` in all sources.

    A clip that two sources hold, or an array that two clips would share, is not chosen from.

    Raises:
        UserError: a source is no HDF5 file, --key is given and no file has keys, or a pattern names an unknown
            column.
    """
    request.require_columns(dict.fromkeys(column for clip in clips for column in clip.source))
    files: dict[str, ClipSource] = {}
    unusable: dict[str, str] = {}
    missing: list[str] = []
    with HDF5FileCache() as handles:
        searches = _searches(request, clips, handles)
        for clip in clips:
            try:
                found = [source for search in searches if (source := search(clip))]
                if len(found) > 1:
                    raise UnreadableClip(f"stands in {found[0].file} and in {found[1].file}")
            except UnreadableClip as error:
                unusable[clip.id] = str(error)
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


_Search = Callable[[Clip], ClipSource | None]


def _searches(request: PackRequest, clips: Sequence[Clip], handles: HDF5FileCache) -> list[_Search]:
    """One search per folder, and one for all HDF5 files together."""
    names_in = lru_cache(CACHED_FOLDERS)(_list_names)
    searches = [_folder_search(request, source, names_in) for source in request.sources if source.is_dir()]
    hdf5_files = [source for source in request.sources if not source.is_dir()]
    if hdf5_files:
        by_key = _hdf5_search(request.key or DEFAULT_PATTERN, hdf5_files, handles)
        in_any_group = _group_search(hdf5_files, ClipNames(clips), handles)
        searches.append(by_key if request.key else lambda clip: by_key(clip) or in_any_group(clip))
    return searches


def _filled(pattern: str, clip: Clip) -> str:
    """`pattern` with the names of `clip` and the columns of its source in place of `{...}`."""
    try:
        return pattern.format_map({**clip.source, "recording": clip.recording, "clip": clip.name})
    except KeyError as lacking:
        raise UnreadableClip(f"the annotation gives it no {{{lacking.args[0]}}}") from None


def _folder_search(request: PackRequest, source: Path, names_in: Callable[[str], frozenset[str]]) -> _Search:
    patterns = request.file_patterns

    def search(clip: Clip) -> ClipSource | None:
        for pattern in patterns:
            file = os.path.join(source, _filled(pattern, clip))
            folder, name = os.path.split(file)
            if name in names_in(folder):
                if is_pickle_name(name):
                    raise UnreadableClip(f"{file} is not opened: {PICKLE_REFUSAL}")
                format = request.format_of(file)
                key = request.key if format in KEYED_FORMATS else None
                return ClipSource(Path(file), format, _filled(key or "", clip))
        return None

    return search


def _list_names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _hdf5_search(pattern: str, files: Sequence[Path], handles: HDF5FileCache) -> _Search:
    """By the names below the pattern's fixed beginning; a file is asked for the rest only where these fit."""
    parts = pattern.strip("/").split("/")
    fixed = next(depth for depth, part in enumerate(parts) if "{" in part)
    files_of: dict[str, list[Path]] = {}
    for file in files:
        for name in _group_names(handles, file, "/".join(parts[:fixed])):
            files_of.setdefault(name, []).append(file)

    def search(clip: Clip) -> ClipSource | None:
        names = [_filled(part, clip) for part in parts]
        key = "/".join(names)
        holders = files_of.get(names[fixed], [])
        if fixed + 1 < len(parts):
            holders = [file for file in holders if _contains_key(handles, file, key)]
        if len(holders) > 1:
            raise UnreadableClip(f"{key} stands in {summarize_names(map(str, holders))}; name {{recording}} in --key")
        return ClipSource(holders[0], "hdf5", key) if holders else None

    return search


def _group_search(files: Sequence[Path], names: ClipNames, handles: HDF5FileCache) -> _Search:
    """By the clip's name in the groups of all files, which are listed on first use; not where names are repeated."""

    @cache
    def indices() -> dict[str, list[tuple[Path, str]]]:
        found: dict[str, list[tuple[Path, str]]] = {}
        for file in files:
            for group in _group_names(handles, file, ""):
                for name in _group_names(handles, file, group):
                    found.setdefault(name, []).append((file, f"{group}/{name}"))
        return found

    def search(clip: Clip) -> ClipSource | None:
        holders = [] if names.repeated_name else indices().get(clip.name, [])
        if len(holders) > 1:
            both = " and as ".join(f"{key} in {file}" for file, key in holders[:2])
            raise UnreadableClip(f"stands as {both}; tell which with --key, or name one of the files alone")
        return ClipSource(holders[0][0], "hdf5", holders[0][1]) if holders else None

    return search


def example_in(file: Path, handles: HDF5FileCache) -> str:
    """The path of an array in an HDF5 file, or of an empty group."""
    path: list[str] = []
    while len(path) < DEEPEST_EXAMPLE and (names := _group_names(handles, file, "/".join(path))):
        path.append(names[0])
    return "/".join(path)


def _contains_key(handles: HDF5FileCache, file: Path, key: str) -> bool:
    try:
        return key in handles.open(file)
    except (OSError, RuntimeError, KeyError) as error:
        raise UnreadableClip(f"{file} is damaged: {error}") from None


def _group_names(handles: HDF5FileCache, file: Path, group: str) -> list[str]:
    try:
        found = handles.open(file).get(group or "/")
        return list(found) if isinstance(found, h5py.Group) else []
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{file} is no whole HDF5 file ({error}); a SOURCE is a folder of files per clip, or such a file."
        ) from None
