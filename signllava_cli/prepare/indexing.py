"""Builds the index of a split, shard by shard, in parallel; after a kill it continues."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from signllava_cli.console import info, progress, warning
from signllava_cli.data.annotations import Clip, annotation_file, read_annotations
from signllava_cli.data.clip_arrays import ArrayMatcher, ClipNames
from signllava_cli.data.index import Index, file_fingerprint
from signllava_cli.data.index_validation import (
    CHECKSUM,
    FORMAT,
    HEAD,
    STREAM_COLUMNS,
    VOCABULARY,
    compute_checksum,
)
from signllava_cli.data.shard import HDF5_ERRORS, LAYOUT, StoredClip, list_shard, read_layout
from signllava_cli.data.split import Split
from signllava_cli.data.stream_files import StreamFiles, StreamLocation, find_stream_files
from signllava_cli.data.words import is_placeholder, words
from signllava_cli.errors import UserError, first_line, format_count, summarize_names
from signllava_cli.files import (
    TEMPORARY_SUFFIX,
    atomic_file,
    exclusive_access,
    sample_hash,
    sha256_file,
    user_cache,
    write_errors_as_user_errors,
)
from signllava_cli.processes import BeforeFile, call_in_child, cpu_cores, limit_cpu_time, limit_reading, submit_all
from signllava_cli.recipe import Data, Stream, is_unicode

MIN_CLIPS_FOR_POOL = 20_000  # listing fewer arrays takes less time than starting processes


def open_index(root: Path, split: str, streams: Mapping[str, StreamLocation], workers: int | None = None) -> Index:
    """The index of `split`; it is built first if it is missing or outdated.

    Raises:
        UserError: an annotation or a shard is missing or invalid.
    """
    if not annotation_file(root, split).is_file():
        read_annotations(root, split)  # raises an error that lists the existing splits
    if index := open_existing_index(root, split, streams):
        return index
    file = _writable_index_file(root, split)
    with exclusive_access(file.parent):
        index = _open_if_valid(file, root)  # another process may have built it in the meantime
        reason = index and index.stale_reason(split, streams)
        if index and not reason:
            return index
        info(f"indexing split {split} of {root}" + (f": {reason}" if reason else ""))
        _build_index(file, root, split, streams, workers or cpu_cores(), index)
    return Index(file, root)


def open_existing_index(root: Path, split: str, streams: Mapping[str, StreamLocation]) -> Index | None:
    """The index of `split` if there is one and it is up to date; none is built.

    Raises:
        UserError: a source file of the index cannot be read.
    """
    for file in index_files(root, split):
        index = _open_if_valid(file, root)
        if index and index.stale_reason(split, streams) is None:
            return index
    return None


def open_split(data: Data, streams: Mapping[str, Stream], split: str) -> Split:
    """The split of the dataset `data.root` with these streams; its index is built first if needed.

    Raises:
        UserError: an error of `open_index`; clips without features, unless `data.missing` is `skip`.
    """
    root = Path(data.root).expanduser()
    return Split(open_index(root, split, streams), split, streams, data.missing)


def index_files(root: Path, split: str) -> list[Path]:
    """Where the index of a split is written, and read: `index.{split}.arrow` in the dataset folder.

    That of a read-only folder is written to the user's cache; one in the folder is read too.

    Raises:
        UserError: the name of the folder is not UTF-8, which Arrow needs.
    """
    if not is_unicode(str(root.absolute())):
        raise UserError(f"{root}: the name of a dataset folder must be UTF-8; rename it.")
    file = root / f"index.{split}.arrow"
    if os.access(root, os.W_OK):
        return [file]
    folder = user_cache() / "index" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return [folder / file.name, file]


def _writable_index_file(root: Path, split: str) -> Path:
    """The file of a new index, in an existing folder.

    Raises:
        UserError: the dataset folder is read-only, and the user's cache too.
    """
    file = index_files(root, split)[0]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{root} is read-only, without an index of split {split} that is up to date, and {file.parent} cannot be "
            f"made ({error.strerror}): run `signllava prepare index` where {root} can be written, or let "
            "XDG_CACHE_HOME name a folder that can be written."
        ) from None
    return file


def _open_if_valid(file: Path, root: Path) -> Index | None:
    try:
        return Index(file, root) if file.is_file() else None
    except UserError as error:
        warning(str(error))
        return None


def _build_index(
    file: Path, root: Path, split: str, streams: Mapping[str, StreamLocation], workers: int, old: Index | None
) -> None:
    start_time = time.monotonic()
    annotation = _annotation_fingerprint(root, split)
    clips = [clip for recording in read_annotations(root, split) for clip in recording.clips]
    names = ClipNames(clips)
    columns, head = _text_columns(clips), {}
    for name, (stream_columns, stream_head) in _reusable_streams(old, split, streams, names).items():
        columns, head[name] = columns | stream_columns, stream_head
    files_of = {
        name: find_stream_files(root, split, name, config) for name, config in streams.items() if name not in head
    }
    # fingerprints are taken before the shards are listed: a shard that changes in between must be detected as stale
    head |= {name: _stream_head(files, streams[name], root) for name, files in files_of.items()}
    parts = file.with_suffix(".parts")
    num_workers = workers if len(clips) * len(files_of) >= MIN_CLIPS_FOR_POOL else 1
    listings = _list_shards({path for files in files_of.values() for path in files.files}, parts, num_workers)
    for name, files in files_of.items():
        stream_columns, head[name]["groups"] = _stream_columns(name, files, listings, names)
        head[name]["layout"] = _stream_layout(name, files, listings)
        columns |= stream_columns
    vocabulary = sorted({keyword.casefold() for clip in clips for keyword in clip.keywords if words(keyword)})
    split_head = {"split": split, "annotation": annotation, "unique_names": names.repeated_name is None}
    metadata = {
        HEAD: json.dumps({"format": FORMAT, **split_head, "streams": head}),
        VOCABULARY: json.dumps(vocabulary),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic_file(file) as temporary:
        _write_arrow(temporary, table)
        with pa.memory_map(str(temporary)) as source:
            checksum = compute_checksum(pa.ipc.open_file(source).read_all())
        _write_arrow(temporary, table.replace_schema_metadata({**metadata, CHECKSUM: checksum}))
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.monotonic() - start_time
    stream_names = f"streams {', '.join(head)}" if head else "no streams"
    info(f"indexed {format_count(len(clips), 'clip')} of split {split}, {stream_names}, in {seconds:.1f} s: {file}")


def _reusable_streams(
    old: Index | None, split: str, streams: Mapping[str, StreamLocation], names: ClipNames
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Stream -> columns and head in the index `old`, for the streams whose files have not changed.

    With these, a changed text or a new stream does not require reading all shards again.
    """
    if old is None or old.has_unique_names != (names.repeated_name is None):  # the clips may now have other arrays
        return {}
    changes = {
        name: old.stream_stale_reason(split, name, streams[name]) if name in streams else old.changed_file(name)
        for name in old.streams
    }
    reusable = {name: old.stream_columns(name) for name, change in changes.items() if not change}
    if not reusable:
        return {}
    old_rows = {old.id(row): row for row in range(len(old))}
    rows = np.array([old_rows.get(clip.id, -1) for clip in names.clips])
    if (rows < 0).any():
        return {}
    return {
        name: ({column: pa.array(values[rows]) for column, values in columns.items()}, head)
        for name, (columns, head) in reusable.items()
    }


def _annotation_fingerprint(root: Path, split: str) -> dict[str, Any]:
    file = annotation_file(root, split)
    return {**file_fingerprint(file, root), "sha256": sha256_file(file)}


def _stream_head(files: StreamFiles, config: StreamLocation, root: Path) -> dict[str, Any]:
    return {
        "pattern": config.shards,
        "metadata": {**file_fingerprint(files.metadata, root), "sha256": sha256_file(files.metadata)},
        "files": [{**file_fingerprint(path, root), "sample": sample_hash(path)} for path in files.files],
    }


def _text_columns(clips: Sequence[Clip]) -> dict[str, Any]:
    """The columns of the annotation. Placeholder paraphrases are skipped with a warning."""
    placeholders = [clip.id for clip in clips for text in clip.paraphrases if is_placeholder(text)]
    if placeholders:
        names = summarize_names(dict.fromkeys(placeholders))
        count = format_count(len(placeholders), "placeholder paraphrase is", "placeholder paraphrases are")
        warning(f"{count} skipped ({names})")
    text_type = pa.large_string()
    bounds = [json.dumps(asdict(clip.context_bound)) if clip.context_bound else None for clip in clips]
    paraphrases = [[text for text in clip.paraphrases if not is_placeholder(text)] for clip in clips]
    return {
        "recording": pa.array([clip.recording for clip in clips], text_type),
        "clip": pa.array([clip.name for clip in clips], text_type),
        "position": pa.array([clip.position for clip in clips], pa.int32()),
        "translation": pa.array([clip.translation for clip in clips], text_type),
        "paraphrases": pa.array(paraphrases, pa.large_list(text_type)),
        "keywords": pa.array([list(clip.keywords) for clip in clips], pa.large_list(text_type)),
        "context_bound": pa.array(bounds, text_type),
        "start": pa.array([clip.start for clip in clips], pa.float64()),
        "end": pa.array([clip.end for clip in clips], pa.float64()),
    }


def _stream_columns(
    name: str, files: StreamFiles, listings: Mapping[Path, Path], names: ClipNames
) -> tuple[dict[str, Any], list[str]]:
    """The location of each clip's frames in one stream, and the names of groups that are not the clips' recordings.

    Raises:
        UserError: the array of an annotated clip is invalid, or a clip has two arrays.
    """
    num_clips = len(names.clips)
    frames, widths, numbers, groups = (np.full(num_clips, fill, np.int32) for fill in (0, 0, -1, -1))
    offsets = np.full(num_clips, -1, np.int64)
    number_of_file = {path: number for number, path in enumerate(files.files)}
    number_of_group: dict[str, int] = {}
    errors = []
    matcher: ArrayMatcher[StoredClip] = ArrayMatcher(names, files.shard_of, files.file_of)
    arrays = ((path, stored) for path in files.files for stored in _read_or_write_listing(path, listings[path]))
    for row, path, stored in matcher.match(arrays):
        if stored.error:
            errors.append(f"clip {stored.recording}/{stored.clip} in {path}: {stored.error}")
        elif stored.frames:
            frames[row], widths[row], numbers[row] = stored.frames, stored.width, number_of_file[path]
            offsets[row] = stored.offset
            if stored.recording != names.clips[row].recording:
                groups[row] = number_of_group.setdefault(stored.recording, len(number_of_group))
    if errors:
        more = f" ({format_count(len(errors) - 1, 'more array')})" if errors[1:] else ""
        raise UserError(f"Stream {name}, {errors[0]}{more}; pack it again, or remove the clip from the annotation.")
    _require_unambiguous(name, matcher)
    if matcher.num_unidentified and names.repeated_name and not frames.all():
        repeated, *recordings = names.repeated_name
        count = format_count(
            matcher.num_unidentified,
            "array with the name of a clip is in a group",
            "arrays with the names of clips are in groups",
        )
        warning(
            f"Stream {name}: {count} not named after the recordings, and skipped, because clip names are not unique: "
            f"clip name {repeated} is in recordings {' and '.join(recordings)}. Rename these groups or clips."
        )
    columns = {"frames": frames, "width": widths, "file": numbers, "group": groups, "offset": offsets}
    return {f"{name}/{column}": pa.array(columns[column]) for column in STREAM_COLUMNS}, list(number_of_group)


def _stream_layout(name: str, files: StreamFiles, listings: Mapping[Path, Path]) -> str | None:
    """The layout of the shards of a stream; None if no shard names one.

    Raises:
        UserError: two shards have different layouts.
    """
    shard_of_layout: dict[str, Path] = {}
    for path in files.files:
        if layout := _listing_layout(listings[path]):
            shard_of_layout.setdefault(layout, path)
    if len(shard_of_layout) > 1:
        (layout, shard), (other_layout, other_shard) = list(shard_of_layout.items())[:2]
        raise UserError(
            f"Stream {name}: {shard} has layout {layout}, but {other_shard} has layout {other_layout}; pack the "
            "stream from features of one layout."
        )
    return next(iter(shard_of_layout), None)


def _require_unambiguous(name: str, matcher: ArrayMatcher[StoredClip]) -> None:
    for row in matcher.ambiguous:
        more = f" ({format_count(len(matcher.ambiguous) - 1, 'more clip')})" if len(matcher.ambiguous) > 1 else ""
        raise UserError(
            f"Stream {name}: clip {matcher.names.clips[row].id} is in {matcher.format_ambiguous(row)}{more}; remove "
            "one of them, or remove one group from the metadata."
        )


def _list_shards(shards: set[Path], parts: Path, workers: int) -> dict[Path, Path]:
    """Shard -> file in `parts` that lists its arrays; files of a killed run are reused."""
    parts.mkdir(parents=True, exist_ok=True)
    listings = {shard: parts / f"{_shard_key(shard)}.arrow" for shard in sorted(shards)}
    pending = [(shard, part) for shard, part in listings.items() if not part.is_file()]
    num_done = len(listings) - len(pending)
    if not pending:
        return listings
    if workers == 1 or len(pending) < 2:
        call_in_child(_write_listings, pending, num_done)
        return listings
    try:
        with (
            submit_all(_list_in_worker, pending, workers) as jobs,
            progress("shards indexed", len(listings), num_done) as bar,
        ):
            for job in as_completed(jobs):
                job.result()
                bar.advance()
    except BrokenProcessPool:
        call_in_child(_write_listings, [pair for pair in pending if not pair[1].is_file()], 0)  # names the shard
    return listings


def _write_listings(before_file: BeforeFile, pending: Sequence[tuple[Path, Path]], num_done: int) -> None:
    with progress("shards indexed", num_done + len(pending), num_done) as bar:
        for shard, part in pending:
            _write_listing(before_file, shard, part)
            bar.advance()


def _read_or_write_listing(shard: Path, part: Path) -> Iterator[StoredClip]:
    try:
        return _read_listing(part)
    except (pa.ArrowException, OSError, TypeError):  # the file is incomplete after a power failure
        call_in_child(_write_listings, [(shard, part)], 0)
        return _read_listing(part)


def _list_in_worker(shard: Path, part: Path) -> None:
    _write_listing(limit_reading, shard, part)


def _write_listing(before_file: BeforeFile, shard: Path, part: Path) -> None:
    before_file(shard)
    rows = []
    for stored in list_shard(shard):
        limit_cpu_time()  # a shard of a million clips may take minutes
        rows.append(astuple(stored))
    names = [field.name for field in fields(StoredClip)]
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    table = pa.table({name: list(column) for name, column in zip(names, columns, strict=True)})
    try:
        with h5py.File(shard, "r") as handle:
            layout = read_layout(handle) or ""
    except HDF5_ERRORS as error:
        raise UserError(f"{shard} is damaged: {first_line(error)}; copy it or pack it again.") from None
    table = table.replace_schema_metadata({LAYOUT: layout})
    temporary = part.with_name(f"{part.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with write_errors_as_user_errors(part):
        _write_arrow(temporary, table)
        temporary.replace(part)


def _write_arrow(file: Path, table: Any) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_listing(part: Path) -> Iterator[StoredClip]:
    with pa.memory_map(str(part)) as source:
        columns = pa.ipc.open_file(source).read_all().to_pydict()
    return (StoredClip(*row) for row in zip(*columns.values(), strict=True))


def _listing_layout(part: Path) -> str:
    with pa.memory_map(str(part)) as source:
        return str((pa.ipc.open_file(source).schema.metadata or {}).get(LAYOUT.encode(), b"").decode())


def _shard_key(shard: Path) -> str:
    """A hash of path, size and modification time of a shard."""
    stat = shard.stat()
    return hashlib.sha256(f"{shard.absolute()}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()[:24]
