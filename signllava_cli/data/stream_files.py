"""Locates the files of a stream: its metadata file, and the shard of each recording."""

import glob
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import MAX_NAME_BYTES, read_json


class StreamLocation(Protocol):
    """Where a stream's files are, as in its section of the recipe; None stands for the default name."""

    @property
    def folder(self) -> str | None: ...

    @property
    def metadata(self) -> str | None: ...

    @property
    def shards(self) -> str | None: ...


@dataclass(frozen=True)
class DefaultLocation:
    """The location of a stream without a recipe: all names are the defaults."""

    folder: None = None
    metadata: None = None
    shards: None = None


@dataclass(frozen=True)
class StreamFiles:
    """The files of one stream and split. `shard_of`: recording or group -> shard. `file_of`: shard -> HDF5 file."""

    metadata: Path
    shard_of: dict[str, str]
    file_of: dict[str, Path]

    @property
    def files(self) -> list[Path]:
        """The shard files, unique and sorted."""
        return sorted(set(self.file_of.values()))


def stream_folder(root: Path, name: str, config: StreamLocation) -> Path:
    """The folder in the recipe, else the folder of the stream's name in the dataset folder `root`."""
    return Path(config.folder).expanduser() if config.folder else root / name


def find_stream_files(root: Path, split: str, name: str, config: StreamLocation) -> StreamFiles:
    """The metadata file and every shard in it.

    Raises:
        UserError: a file is missing (the message has the names that were tried), or the metadata is not
            `{recording: shard}`.
    """
    metadata = find_metadata(root, split, name, config)
    shard_of = read_shard_map(metadata)
    recordings_by_shard: dict[str, list[str]] = {}
    for recording, shard in shard_of.items():
        recordings_by_shard.setdefault(shard, []).append(recording)
    file_of = {}
    for shard, recordings in recordings_by_shard.items():
        candidates = shard_candidates(metadata, split, name, config, shard)
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            raise UserError(
                f"Stream {name}: shard {shard} of split {split} is missing (tried "
                f"{summarize_names(dict.fromkeys(map(str, candidates)))}); it has {summarize_names(recordings)}. "
                f"Copy it or pack it again; `signllava prepare check {shlex.quote(str(root))}` lists all errors."
            )
        file_of[shard] = file
    return StreamFiles(metadata, shard_of, file_of)


def read_shard_map(metadata: Path) -> dict[str, str]:
    """`{recording: shard}`, the shards as strings.

    Raises:
        UserError: a shard is neither an integer nor a string.
    """
    content = read_json(metadata)
    for recording, shard in content.items():
        if not is_shard_name(shard):
            raise UserError(
                f"{metadata}: the shard of recording {recording!a} is {shard!a}, neither a number nor a name."
            )
    return {recording: str(shard) for recording, shard in content.items()}


def is_shard_name(shard: object) -> bool:
    """Whether `shard` of a metadata file is valid: an integer, or a string that can be part of a file name."""
    return isinstance(shard, int | str) and not isinstance(shard, bool) and str(shard) != "" and "/" not in str(shard)


def find_metadata(root: Path, split: str, name: str, config: StreamLocation) -> Path:
    """The metadata file: by the pattern of the recipe, else the default name, else the only file of a similar name.

    Raises:
        UserError: there is none; the message has the names that were tried.
    """
    folder = stream_folder(root, name, config)
    if not folder.is_dir():
        raise UserError(f"The folder {folder} of stream {name} is missing; set streams.{name}.folder, or data.root.")
    if config.metadata:
        candidates = [folder / config.metadata.format(split=split)]
    else:
        candidates = [folder / f"metadata_{name}.{split}.json"]
        for pattern in (f"metadata_*.{glob.escape(split)}.json", f"*.{glob.escape(split)}.json"):
            matches = [file for file in sorted(folder.glob(pattern)) if not _is_pack_result(file)]
            candidates += matches if len(matches) == 1 else []
    for file in candidates:
        if file.is_file():
            return file
    raise UserError(
        f"Stream {name} has no metadata file for split {split} in {folder} "
        f"(tried {summarize_names(file.name for file in candidates)}); set streams.{name}.metadata."
    )


def shard_candidates(metadata: Path, split: str, name: str, config: StreamLocation, shard: str) -> list[Path]:
    """The possible files of a shard: by the recipe's pattern, else by default name, or the only one of its ending."""
    folder = metadata.parent
    if config.shards:
        return [folder / config.shards.format(split=split, shard=shard)]
    stem = metadata.name.removeprefix("metadata_").removesuffix(".json")
    default_names = [folder / f"{stem}.{shard}.h5", folder / f"{name}.{split}.{shard}.h5"]
    if len(shard.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        return default_names
    matches = sorted(folder.glob(f"*.{glob.escape(split)}.{glob.escape(shard)}.h5"))
    return default_names + (matches if len(matches) == 1 else [])


def _is_pack_result(file: Path) -> bool:
    """Whether `file` is a result of `prepare pack`, and so no metadata file."""
    return file.name.startswith("pack.")
