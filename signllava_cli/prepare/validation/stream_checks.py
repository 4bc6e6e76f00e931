"""Checks the files of a stream: its folder, its metadata, and the shards that the metadata names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.stream_files import (
    DefaultLocation,
    StreamLocation,
    find_metadata,
    is_shard_name,
    shard_candidates,
    stream_folder,
)
from signllava_cli.errors import UserError
from signllava_cli.files import TEMPORARY_SUFFIX, read_json
from signllava_cli.prepare.validation.findings import Findings


@dataclass(frozen=True)
class StreamShards:
    """The shards of one stream and split.

    `shard_of`: recording -> shard. `file_of`: shard -> file, if it exists. `invalid`: recordings with an invalid
    shard name.
    """

    split: str
    stream: str
    metadata: Path
    shard_of: Mapping[str, str]
    file_of: Mapping[str, Path]
    invalid: frozenset[str]


def detect_streams(root: Path) -> dict[str, StreamLocation]:
    """The sub-folders of `root` that hold a metadata file or a shard."""
    return {
        folder.name: DefaultLocation()
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        and not folder.name.endswith(TEMPORARY_SUFFIX)
        and (any(folder.glob("metadata*.json")) or any(folder.glob("*.h5")))
    }


def find_shards(root: Path, split: str, name: str, config: StreamLocation, findings: Findings) -> StreamShards | None:
    """The shards that the metadata of a split names, or None if the metadata cannot be read."""
    folder = stream_folder(root, name, config)
    if not folder.is_dir():
        findings.add("stream-folder-missing", [str(folder)], None, name)
        return None
    try:
        metadata = find_metadata(root, split, name, config)
    except UserError as error:
        findings.add("metadata-missing", [f"metadata_{name}.{split}.json"], split, name, str(error))
        return None
    try:
        content = read_json(metadata)
    except UserError as error:
        findings.add("metadata-unreadable", [metadata.name], split, name, str(error))
        return None
    shard_of = {recording: str(shard) for recording, shard in content.items() if is_shard_name(shard)}
    invalid = frozenset(content) - set(shard_of)
    findings.add("shard-name-invalid", (recording for recording in content if recording in invalid), split, name)
    file_of: dict[str, Path] = {}
    for shard in dict.fromkeys(shard_of.values()):
        candidates = shard_candidates(metadata, split, name, config, shard)
        if file := next((file for file in candidates if file.is_file()), None):
            file_of[shard] = file
        else:
            findings.add("shard-missing", [candidates[0].name], split, name)
    return StreamShards(split, name, metadata, shard_of, file_of, invalid)


def check_leftovers(root: Path, streams: Sequence[StreamShards], findings: Findings) -> None:
    """Add findings for shards that no metadata names, and for temporary files of stopped commands."""
    streams_in: dict[Path, list[StreamShards]] = {}
    for shards in streams:
        streams_in.setdefault(shards.metadata.parent, []).append(shards)
    for folder, folder_streams in streams_in.items():
        named_files = {file for shards in folder_streams for file in shards.file_of.values()}
        checked_splits = {shards.split for shards in folder_streams}
        unchecked_splits = {file.name.split(".")[-2] for file in folder.glob("*.*.json")} - checked_splits
        unnamed = (file.name for file in sorted(folder.glob("*.h5")) if file not in named_files)
        unreferenced = (name for name in unnamed if not unchecked_splits.intersection(name.split(".")))
        findings.add("shard-stray", unreferenced, None, folder_streams[0].stream)
    temporary_files = (path for folder in (root, *streams_in) for path in sorted(folder.glob(f"*{TEMPORARY_SUFFIX}")))
    findings.add("file-half-written", (str(path) for path in temporary_files))
