"""Where the files of a stream lie: its metadata file, and the shard of each recording."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_json


class StreamLocation(Protocol):
    """Where a stream's files lie, as the recipe's section of the stream says; None: by the rule of the layout."""

    @property
    def folder(self) -> str | None: ...

    @property
    def metadata(self) -> str | None: ...

    @property
    def shards(self) -> str | None: ...


@dataclass(frozen=True)
class DefaultLocation:
    """The location of a stream that no recipe names: all by the rule of the layout."""

    folder: None = None
    metadata: None = None
    shards: None = None


@dataclass(frozen=True)
class StreamFiles:
    """The files of one stream and split. `shard_of`: recording -> shard; `file_of`: shard -> HDF5 file."""

    metadata: Path
    shard_of: dict[str, str]
    file_of: dict[str, Path]

    @property
    def files(self) -> list[Path]:
        """Every shard, once, sorted."""
        return sorted(set(self.file_of.values()))


def stream_folder(root: Path, name: str, config: StreamLocation) -> Path:
    """The folder that the recipe names, or the stream's own under the data folder."""
    return Path(config.folder).expanduser() if config.folder else root / name


def find_stream_files(root: Path, split: str, name: str, config: StreamLocation) -> StreamFiles:
    """The metadata file and every shard that it names.

    Raises:
        UserError: one of them is missing, says which names were tried; or the metadata is no `{recording: shard}`.
    """
    metadata = find_metadata(root, split, name, config)
    shard_of = read_shard_map(metadata)
    shards: dict[str, list[str]] = {}
    for recording, shard in shard_of.items():
        shards.setdefault(shard, []).append(recording)
    file_of = {}
    for shard, recordings in shards.items():
        tried = shard_candidates(metadata, split, name, config, shard)
        file = next((file for file in tried if file.is_file()), None)
        if file is None:
            raise UserError(
                f"Stream {name}: shard {shard} of split {split} is missing (tried "
                f"{summarize_names(dict.fromkeys(str(file) for file in tried))}); it holds {summarize_names(recordings)}. "
                f"Copy it or pack it again; `signllava prepare check {root}` lists all that is wrong."
            )
        file_of[shard] = file
    return StreamFiles(metadata, shard_of, file_of)


def read_shard_map(metadata: Path) -> dict[str, str]:
    """`{recording: shard}`, each shard as text.

    Raises:
        UserError: a shard is neither a whole number nor a text.
    """
    content = read_json(metadata)
    for recording, shard in content.items():
        if not is_shard_name(shard):
            raise UserError(f"{metadata}: the shard of recording {recording!a} is {shard!a}, no number and no name.")
    return {recording: str(shard) for recording, shard in content.items()}


def is_shard_name(shard: object) -> bool:
    """Whether a metadata file may name `shard`: a whole number, or a text that can be part of a file's name."""
    return isinstance(shard, int | str) and not isinstance(shard, bool) and str(shard) != "" and "/" not in str(shard)


def find_metadata(root: Path, split: str, name: str, config: StreamLocation) -> Path:
    """The explicit pattern; else the layout's rule; else the only other file that can be meant.

    Raises:
        UserError: there is none; says which names were tried.
    """
    folder = stream_folder(root, name, config)
    if not folder.is_dir():
        raise UserError(f"No folder {folder} for stream {name}; set streams.{name}.folder, or data.root.")
    if config.metadata:
        tried = [folder / config.metadata.format(split=split)]
    else:
        tried = [folder / f"metadata_{name}.{split}.json"]
        for pattern in (f"metadata_*.{glob.escape(split)}.json", f"*.{glob.escape(split)}.json"):
            candidates = [file for file in sorted(folder.glob(pattern)) if not _is_report(file)]
            tried += candidates if len(candidates) == 1 else []
    for file in tried:
        if file.is_file():
            return file
    raise UserError(
        f"Stream {name} has no metadata file for split {split} in {folder} "
        f"(tried {summarize_names(file.name for file in tried)}); set streams.{name}.metadata."
    )


def shard_candidates(metadata: Path, split: str, name: str, config: StreamLocation, shard: str) -> list[Path]:
    """Where a shard may lie: the explicit pattern; else the rule of the layout, or the one file that ends so."""
    folder = metadata.parent
    if config.shards:
        return [folder / config.shards.format(split=split, shard=shard)]
    stem = metadata.name.removeprefix("metadata_").removesuffix(".json")
    tried = [folder / f"{stem}.{shard}.h5", folder / f"{name}.{split}.{shard}.h5"]
    candidates = sorted(folder.glob(f"*.{glob.escape(split)}.{glob.escape(shard)}.h5"))
    return tried + (candidates if len(candidates) == 1 else [])


def _is_report(file: Path) -> bool:
    """What `prepare pack` writes about its work is no metadata."""
    return file.name.startswith("pack.")
