"""Makes the index of a split, shard by shard, in parallel, and goes on where a killed one stopped."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from signllava_cli.console import info, progress, warning
from signllava_cli.data.annotations import Clip, annotation_file, read_annotations
from signllava_cli.data.clip_arrays import ArrayMatcher, ClipNames
from signllava_cli.data.index import FORMAT, HEAD, STREAM_COLUMNS, VOCABULARY, Index, file_fingerprint
from signllava_cli.data.shard import LAYOUT, StoredClip, list_shard, read_layout
from signllava_cli.data.split import Split
from signllava_cli.data.stream_files import StreamFiles, StreamLocation, find_stream_files
from signllava_cli.data.words import is_placeholder, words
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import TEMPORARY_SUFFIX, atomic_file, exclusive_access, sha256_file
from signllava_cli.processes import cpu_cores, submit_all
from signllava_cli.recipe import Data, Stream

SAMPLES, SAMPLE_SIZE = 16, 4096  # blocks of a shard, and bytes of each
MIN_CLIPS_FOR_POOL = 20_000  # arrays: fewer are listed sooner than processes start


def open_index(root: Path, split: str, streams: Mapping[str, StreamLocation], workers: int | None = None) -> Index:
    """The index of `split`, made first where there is none that tells the truth.

    Raises:
        UserError: what annotations or shards lack.
    """
    if not annotation_file(root, split).is_file():
        read_annotations(root, split)  # says what is there instead
    file = index_file(root, split)
    index = _open_if_valid(file, root)
    if index and index.stale_reason(split, streams) is None:
        return index
    with exclusive_access(file.parent):
        index = _open_if_valid(file, root)  # another process may have made it meanwhile
        stale = index and index.stale_reason(split, streams)
        if index and not stale:
            return index
        info(f"indexing split {split} of {root}" + (f": {stale}" if stale else ""))
        _build_index(file, root, split, streams, workers or cpu_cores(), index)
    return Index(file, root)


def open_split(data: Data, streams: Mapping[str, Stream], split: str) -> Split:
    """The split of the dataset `data.root` with these streams; its index is made first where there is none.

    Raises:
        UserError: what annotations or shards lack; clips without features, unless `data.missing` is `skip`.
    """
    root = Path(data.root).expanduser()
    return Split(open_index(root, split, streams), split, streams, data.missing)


def index_file(root: Path, split: str) -> Path:
    """`index.{split}.arrow` in the data folder, or in the user's cache where the data folder is read-only."""
    if os.access(root, os.W_OK):
        return root / f"index.{split}.arrow"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "signllava" / "index" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"index.{split}.arrow"


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
    for name, (kept, its_head) in _reusable_streams(old, split, streams, names).items():
        columns, head[name] = columns | kept, its_head
    found = {
        name: find_stream_files(root, split, name, config) for name, config in streams.items() if name not in head
    }
    # before the shards are listed: one that changes while it is read must not look unchanged
    head |= {name: _stream_head(files, streams[name], root) for name, files in found.items()}
    parts = file.with_suffix(".parts")
    at_once = workers if len(clips) * len(found) >= MIN_CLIPS_FOR_POOL else 1
    listings = _list_shards({path for files in found.values() for path in files.files}, parts, at_once)
    for name, files in found.items():
        located, head[name]["groups"] = _stream_columns(name, files, listings, names)
        head[name]["layout"] = _stream_layout(name, files, listings)
        columns |= located
    vocabulary = sorted({keyword.casefold() for clip in clips for keyword in clip.keywords if words(keyword)})
    of_split = {"split": split, "annotation": annotation, "unique_names": names.repeated_name is None}
    metadata = {
        HEAD: json.dumps({"format": FORMAT, **of_split, "streams": head}),
        VOCABULARY: json.dumps(vocabulary),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic_file(file) as temporary:
        _write_arrow(temporary, table)
    shutil.rmtree(parts, ignore_errors=True)
    seconds = time.monotonic() - start_time
    of = f"streams {', '.join(head)}" if head else "no streams"
    info(f"indexed {len(clips)} clips of split {split}, {of}, in {seconds:.1f} s: {file}")


def _reusable_streams(
    old: Index | None, split: str, streams: Mapping[str, StreamLocation], names: ClipNames
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What `old` still knows of streams whose files have not changed: columns for `clips`, and what is said of files.

    So a changed text, or another recipe's stream, costs no shard a second reading.
    """
    if old is None or old.has_unique_names != (names.repeated_name is None):  # other arrays may be the clips' now
        return {}
    stale = {
        name: old.stream_stale_reason(split, name, streams[name]) if name in streams else old.changed_file(name)
        for name in old.streams
    }
    kept = {name: old.stream_columns(name) for name, changed in stale.items() if not changed}
    if not kept:
        return {}
    old_rows = {old.id(row): row for row in range(len(old))}
    rows = np.array([old_rows.get(clip.id, -1) for clip in names.clips])
    if (rows < 0).any():
        return {}
    return {
        name: ({column: pa.array(values[rows]) for column, values in columns.items()}, head)
        for name, (columns, head) in kept.items()
    }


def _annotation_fingerprint(root: Path, split: str) -> dict[str, Any]:
    file = annotation_file(root, split)
    return {**file_fingerprint(file, root), "sha256": sha256_file(file)}


def _stream_head(files: StreamFiles, config: StreamLocation, root: Path) -> dict[str, Any]:
    return {
        "pattern": config.shards,
        "metadata": {**file_fingerprint(files.metadata, root), "sha256": sha256_file(files.metadata)},
        "files": [{**file_fingerprint(path, root), "sample": _sample_hash(path)} for path in files.files],
    }


def _text_columns(clips: Sequence[Clip]) -> dict[str, Any]:
    """The columns that the annotation gives. Paraphrases that say nothing are left out, counted and named."""
    empty = [clip.id for clip in clips for text in clip.paraphrases if is_placeholder(text)]
    if empty:
        warning(f"{len(empty)} paraphrases that say nothing are left out ({summarize_names(dict.fromkeys(empty))})")
    texts = pa.large_string()
    bounds = [json.dumps(asdict(clip.context_bound)) if clip.context_bound else None for clip in clips]
    paraphrases = [[text for text in clip.paraphrases if not is_placeholder(text)] for clip in clips]
    return {
        "recording": pa.array([clip.recording for clip in clips], texts),
        "clip": pa.array([clip.name for clip in clips], texts),
        "position": pa.array([clip.position for clip in clips], pa.int32()),
        "translation": pa.array([clip.translation for clip in clips], texts),
        "paraphrases": pa.array(paraphrases, pa.large_list(texts)),
        "keywords": pa.array([list(clip.keywords) for clip in clips], pa.large_list(texts)),
        "context_bound": pa.array(bounds, texts),
        "start": pa.array([clip.start for clip in clips], pa.float64()),
        "end": pa.array([clip.end for clip in clips], pa.float64()),
    }


def _stream_columns(
    name: str, files: StreamFiles, listings: Mapping[Path, Path], names: ClipNames
) -> tuple[dict[str, Any], list[str]]:
    """Where each clip's frames lie in one stream, and the groups that are no recordings of their clips.

    Raises:
        UserError: an annotated clip's array cannot be used, or two arrays could be a clip's.
    """
    count = len(names.clips)
    frames, widths, numbers, groups = (np.full(count, fill, np.int32) for fill in (0, 0, -1, -1))
    offsets = np.full(count, -1, np.int64)
    number_of_file = {path: number for number, path in enumerate(files.files)}
    number_of_group: dict[str, int] = {}
    errors = []
    matcher: ArrayMatcher[StoredClip] = ArrayMatcher(names, files.shard_of, files.file_of)
    listed = ((path, stored) for path in files.files for stored in _listing(path, listings[path]))
    for row, path, stored in matcher.match(listed):
        if stored.error:
            errors.append(f"clip {stored.recording}/{stored.clip} in {path}: {stored.error}")
        elif stored.frames:
            frames[row], widths[row], numbers[row] = stored.frames, stored.width, number_of_file[path]
            offsets[row] = stored.offset
            if stored.recording != names.clips[row].recording:
                groups[row] = number_of_group.setdefault(stored.recording, len(number_of_group))
    if errors:
        more = f" ({len(errors) - 1} more like it)" if errors[1:] else ""
        raise UserError(f"Stream {name}, {errors[0]}{more}; pack it again, or take the clip out of the annotation.")
    _require_unambiguous(name, matcher)
    if matcher.num_unidentified and names.repeated_name and not frames.all():
        repeated, *recordings = names.repeated_name
        warning(
            f"Stream {name}: {matcher.num_unidentified} arrays of clip names lie in groups of other names than the "
            f"recordings' and are not used, because names do not identify clips here: clip name {repeated} stands in "
            f"recordings {' and '.join(recordings)}."
        )
    columns = {"frames": frames, "width": widths, "file": numbers, "group": groups, "offset": offsets}
    return {f"{name}/{column}": pa.array(columns[column]) for column in STREAM_COLUMNS}, list(number_of_group)


def _stream_layout(name: str, files: StreamFiles, listings: Mapping[Path, Path]) -> str | None:
    """What the shards of a stream call their layout.

    Raises:
        UserError: two shards name different ones.
    """
    shard_of_layout: dict[str, Path] = {}
    for path in files.files:
        if layout := _listing_layout(listings[path]):
            shard_of_layout.setdefault(layout, path)
    if len(shard_of_layout) > 1:
        (one, first), (other, second) = list(shard_of_layout.items())[:2]
        raise UserError(
            f"Stream {name}: {first} holds layout {one} and {second} layout {other}: pack the stream from features "
            "of one layout."
        )
    return next(iter(shard_of_layout), None)


def _require_unambiguous(name: str, matcher: ArrayMatcher[StoredClip]) -> None:
    for row in matcher.ambiguous:
        more = f" ({len(matcher.ambiguous) - 1} more clips like it)" if len(matcher.ambiguous) > 1 else ""
        raise UserError(
            f"Stream {name}: clip {matcher.names.clips[row].id} lies in {matcher.format_ambiguous(row)}{more}; remove one "
            "of them, or take one group out of the metadata."
        )


def _list_shards(shards: set[Path], parts: Path, workers: int) -> dict[Path, Path]:
    """For each shard, the file in `parts` that lists its arrays; those that a killed run has left are kept."""
    parts.mkdir(parents=True, exist_ok=True)
    listings = {shard: parts / f"{_key(shard)}.arrow" for shard in sorted(shards)}
    waiting = [(shard, part) for shard, part in listings.items() if not part.is_file()]
    done = len(listings) - len(waiting)
    if workers == 1 or len(waiting) < 2:
        with progress("shards indexed", len(listings), done) as line:
            for shard, part in waiting:
                _write_listing(shard, part)
                line.advance()
        return listings
    with (
        submit_all(_write_listing, waiting, workers) as jobs,
        progress("shards indexed", len(listings), done) as line,
    ):
        for job in as_completed(jobs):
            job.result()
            line.advance()
    return listings


def _listing(shard: Path, part: Path) -> Iterator[StoredClip]:
    try:
        return _read_listing(part)
    except (pa.ArrowException, OSError, TypeError):  # a power cut may leave half of it
        _write_listing(shard, part)
        return _read_listing(part)


def _write_listing(shard: Path, part: Path) -> None:
    rows = [astuple(stored) for stored in list_shard(shard)]
    names = [field.name for field in fields(StoredClip)]
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    table = pa.table({name: list(column) for name, column in zip(names, columns, strict=True)})
    with h5py.File(shard, "r") as handle:
        table = table.replace_schema_metadata({LAYOUT: read_layout(handle) or ""})
    temporary = part.with_name(f"{part.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
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


def _key(shard: Path) -> str:
    """A name for what a shard held at this moment."""
    state = shard.stat()
    return hashlib.sha256(f"{shard.absolute()}\n{state.st_size}\n{state.st_mtime_ns}".encode()).hexdigest()[:24]


def _sample_hash(shard: Path) -> str:
    """SHA-256 of some blocks of a shard, evenly spaced: frames that were extracted anew are other data."""
    digest, size = hashlib.sha256(), shard.stat().st_size
    with open(shard, "rb") as content:
        for place in range(SAMPLES):
            content.seek(place * max(0, size - SAMPLE_SIZE) // max(1, SAMPLES - 1))
            digest.update(content.read(SAMPLE_SIZE))
    return digest.hexdigest()[:16]
