"""Finds the array of each clip with one listing per folder and per HDF5 file."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import h5py

from signllava_cli.data.annotations import Clip
from signllava_cli.data.clip_arrays import ClipNames
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache
from signllava_cli.data.shard import HDF5_ERRORS
from signllava_cli.errors import UserError, first_line, summarize_names
from signllava_cli.prepare.pack.request import (
    DEFAULT_PATTERN,
    KEYED_FORMATS,
    PICKLE_REFUSAL,
    PackRequest,
    is_pickle_name,
)
from signllava_cli.prepare.pack.unused_files import UnusedFiles, find_unused_files
from signllava_cli.processes import BeforeFile

MAX_EXAMPLE_DEPTH = 8  # groups: a file may link a group into itself
CACHED_FOLDERS = 64  # folder listings; clips are searched recording by recording


@dataclass(frozen=True)
class ClipLocations:
    """Where the annotated clips are in the sources, in annotation order.

    `sources`: `recording/clip` -> array. `unusable`: `recording/clip` -> why the array cannot be used. `missing`:
    `recording/clip` of the clips without an array. `unused`: files in the folders that are of none of the clips.
    """

    sources: dict[str, ClipSource]
    unusable: dict[str, str]
    missing: list[str]
    unused: UnusedFiles = field(default_factory=UnusedFiles)

    def digest(self) -> str:
        """SHA-256 over the location of each clip, and the size and modification time of its file."""
        digest = hashlib.sha256()
        fingerprints: dict[Path, str] = {}
        for clip, source in self.sources.items():
            if source.file not in fingerprints:
                fingerprints[source.file] = _size_and_mtime(source.file)
            digest.update(
                f"{clip}\0{source.file}\0{fingerprints[source.file]}\0{source.key}\0{source.format}\n".encode()
            )
        digest.update("\n".join([*self.unusable, "", *self.missing]).encode())
        return digest.hexdigest()


def _size_and_mtime(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # a broken link: packing reports the clip as faulty
        return ""
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def find_clips(before_file: BeforeFile, request: PackRequest, clips: Sequence[Clip]) -> ClipLocations:
    """Find the array of each clip in all sources; for `call_in_child`.

    A clip that is in two sources, and clips that would share an array, are unusable.

    Raises:
        UserError: a source is not a valid HDF5 file, --key is given and no file has keys, or a pattern names an
            unknown column.
    """
    request.require_columns(dict.fromkeys(column for clip in clips for column in clip.source))
    sources: dict[str, ClipSource] = {}
    unusable: dict[str, str] = {}
    missing: list[str] = []
    with HDF5FileCache(before_file) as handles:
        searches = _make_searches(request, clips, handles)
        for clip in clips:
            try:
                matches = [source for search in searches if (source := search(clip))]
                if len(matches) > 1:
                    raise UnreadableClip(f"is in {matches[0].file} and in {matches[1].file}")
            except UnreadableClip as error:
                unusable[clip.id] = str(error)
                continue
            if matches:
                sources[clip.id] = matches[0]
            else:
                missing.append(clip.id)
    if request.key is not None and sources and not any(s.format in KEYED_FORMATS for s in sources.values()):
        raise UserError(f"--key {request.key}: none of the files found holds several arrays; omit this option.")
    found = list(sources.values())
    uses = Counter((source.file, source.key) for source in sources.values())
    for clip_id, source in list(sources.items()):
        if uses[source.file, source.key] > 1:
            del sources[clip_id]
            unusable[clip_id] = "another clip has the same array; put {recording} into the pattern"
    by_id = {clip.id: clip for clip in clips}
    searched = {clip_id: _files_of(request, by_id[clip_id]) for clip_id in missing}
    return ClipLocations(sources, unusable, missing, find_unused_files(request, found, searched))


_Search = Callable[[Clip], ClipSource | None]


def _make_searches(request: PackRequest, clips: Sequence[Clip], handles: HDF5FileCache) -> list[_Search]:
    """One search per folder, and one for all HDF5 files together."""
    names_in = lru_cache(CACHED_FOLDERS)(_list_names)
    searches = [_folder_search(request, source, names_in) for source in request.sources if source.is_dir()]
    hdf5_files = [source for source in request.sources if not source.is_dir()]
    if hdf5_files:
        by_key = _hdf5_search(request.key or DEFAULT_PATTERN, hdf5_files, handles)
        in_any_group = _group_search(hdf5_files, ClipNames(clips), handles)
        searches.append(by_key if request.key else lambda clip: by_key(clip) or in_any_group(clip))
    return searches


def _fill_pattern(pattern: str, clip: Clip) -> str:
    """`pattern` with `{...}` replaced by the names of `clip` and the columns of its source.

    Raises:
        UnreadableClip: a column is missing, or would lead out of the folder of the pattern.
    """
    values = {**clip.source, "recording": clip.recording, "clip": clip.name}
    for column, value in values.items():
        if f"{{{column}}}" in pattern and ("\0" in value or value.startswith("/") or ".." in value.split("/")):
            raise UnreadableClip(f"{column} is {value!r}, a path out of the folder")
    try:
        return pattern.format_map(values)
    except KeyError as error:
        raise UnreadableClip(f"the annotation has no {{{error.args[0]}}} for this clip") from None


def _files_of(request: PackRequest, clip: Clip) -> list[str]:
    """The files that may hold the array of `clip`, in all folders."""
    names = [_fill_pattern(pattern, clip) for pattern in request.file_patterns]
    return [os.path.join(source, name) for source in request.sources if source.is_dir() for name in names]


def _folder_search(request: PackRequest, source: Path, names_in: Callable[[str], frozenset[str]]) -> _Search:
    patterns = request.file_patterns

    def search(clip: Clip) -> ClipSource | None:
        for pattern in patterns:
            file = os.path.join(source, _fill_pattern(pattern, clip))
            folder, name = os.path.split(file)
            if name in names_in(folder):
                if is_pickle_name(name):
                    raise UnreadableClip(f"{file} is not opened: {PICKLE_REFUSAL}")
                format = request.format_of(file)
                key = request.key if format in KEYED_FORMATS else None
                return ClipSource(Path(file), format, _fill_pattern(key or "", clip))
        return None

    return search


def _list_names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return frozenset()
        raise


def _hdf5_search(pattern: str, files: Sequence[Path], handles: HDF5FileCache) -> _Search:
    """Searches by the first name that depends on the clip; only files that hold it are searched for the whole key."""
    parts = pattern.strip("/").split("/")
    num_fixed = next(depth for depth, part in enumerate(parts) if "{" in part)
    files_of: dict[str, list[Path]] = {}
    for file in files:
        for name in _group_names(handles, file, "/".join(parts[:num_fixed])):
            files_of.setdefault(name, []).append(file)

    def search(clip: Clip) -> ClipSource | None:
        names = [_fill_pattern(part, clip) for part in parts]
        key = "/".join(names)
        matches = files_of.get(names[num_fixed], [])
        if num_fixed + 1 < len(parts):
            matches = [file for file in matches if _contains_key(handles, file, key)]
        if len(matches) > 1:
            raise UnreadableClip(f"{key} is in {summarize_names(map(str, matches))}; put {{recording}} into --key")
        return ClipSource(matches[0], "hdf5", key) if matches else None

    return search


def _group_search(files: Sequence[Path], names: ClipNames, handles: HDF5FileCache) -> _Search:
    """Searches by clip name in the groups of all files (listed on first use), if clip names are unique."""

    @cache
    def keys_by_name() -> dict[str, list[tuple[Path, str]]]:
        keys: dict[str, list[tuple[Path, str]]] = {}
        for file in files:
            for group in _group_names(handles, file, ""):
                for name in _group_names(handles, file, group):
                    keys.setdefault(name, []).append((file, f"{group}/{name}"))
        return keys

    def search(clip: Clip) -> ClipSource | None:
        matches = [] if names.repeated_name else keys_by_name().get(clip.name, [])
        if len(matches) > 1:
            keys = " and as ".join(f"{key} in {file}" for file, key in matches[:2])
            raise UnreadableClip(f"found as {keys}; choose one with --key, or name only one of the files")
        return ClipSource(matches[0][0], "hdf5", matches[0][1]) if matches else None

    return search


def find_example_key(file: Path, handles: HDF5FileCache) -> str:
    """The key of one array in an HDF5 file, or of an empty group."""
    path: list[str] = []
    while len(path) < MAX_EXAMPLE_DEPTH and (names := _group_names(handles, file, "/".join(path))):
        path.append(names[0])
    return "/".join(path)


def _contains_key(handles: HDF5FileCache, file: Path, key: str) -> bool:
    try:
        return key in handles.open(file)
    except HDF5_ERRORS as error:
        raise UnreadableClip(f"{file} is damaged: {first_line(error)}") from None


def _group_names(handles: HDF5FileCache, file: Path, group: str) -> list[str]:
    try:
        entry = handles.open(file).get(group or "/")
        return list(entry) if isinstance(entry, h5py.Group) else []
    except HDF5_ERRORS as error:
        raise UserError(
            f"{file} is not a valid HDF5 file ({first_line(error)}); a SOURCE is a folder with a file per clip, or "
            "an HDF5 file."
        ) from None
