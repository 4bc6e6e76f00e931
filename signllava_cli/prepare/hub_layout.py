"""The files of a dataset repository on the hub: their paths, and SHA256SUMS, the file of their SHA-256 sums.

All have the default names of a dataset folder, whatever the names of the files that were uploaded.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import annotation_file
from signllava_cli.data.stream_files import DefaultLocation, find_stream_files
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.prepare.dataset_folder import list_splits, list_streams, require_known

DATASET = "dataset"  # the type of the repository
CHECKSUMS, CARD = "SHA256SUMS", "README.md"
REPOSITORY_FILES = {CHECKSUMS, CARD, ".gitattributes"}  # which are not files of the dataset folder
NAME = r"[A-Za-z0-9_-]+"  # of a stream or split
PATHS = (
    re.compile(rf"annotation\.(?P<split>{NAME})\.json"),
    re.compile(rf"(?P<stream>{NAME})/metadata_(?P=stream)\.(?P<split>{NAME})\.json"),
    re.compile(rf"(?P<stream>{NAME})/(?P=stream)\.(?P<split>{NAME})\.[\w.-]{{1,100}}\.h5"),
)
CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, order=True)
class DatasetPath:
    """The path of a file in a dataset repository; `stream` is None for an annotation."""

    path: str
    split: str
    stream: str | None

    @classmethod
    def parse(cls, path: str) -> "DatasetPath | None":
        """None if a dataset has no such file; a path that leads out of the folder is none."""
        match = next(filter(None, (pattern.fullmatch(path) for pattern in PATHS)), None)
        return match and cls(path, match["split"], match.groupdict().get("stream"))


def list_dataset_files(
    root: Path, splits: Sequence[str] | None, streams: Sequence[str] | None
) -> dict[DatasetPath, Path]:
    """Path in the repository -> file, of the annotations, metadata and shards of the dataset folder `root`.

    Args:
        splits: default: all.
        streams: default: all streams of each split.

    Raises:
        UserError: a split, stream or shard is missing, or the hub cannot have a file of its name.
    """
    existing = list_splits(root)
    chosen = list(dict.fromkeys(splits or existing))
    require_known("split", chosen, existing, str(root))
    streams_of = {split: list(list_streams(root, split)) for split in chosen}
    known = sorted({stream for names in streams_of.values() for stream in names})
    require_known("stream", streams or [], known, str(root))
    files: dict[DatasetPath, Path] = {}
    for split, names in streams_of.items():
        files[_parse_local(f"annotation.{split}.json", root)] = annotation_file(root, split)
        for stream in names:
            if streams is None or stream in streams:
                stream_files = find_stream_files(root, split, stream, DefaultLocation())
                metadata = _parse_local(f"{stream}/metadata_{stream}.{split}.json", root)
                files[metadata] = stream_files.metadata
                for shard, file in sorted(stream_files.file_of.items()):
                    files[_parse_local(f"{stream}/{stream}.{split}.{shard}.h5", root)] = file
    return files


def _parse_local(path: str, root: Path) -> DatasetPath:
    parsed = DatasetPath.parse(path)
    if parsed is None:
        raise UserError(
            f"{root}: {path} cannot be the name of a file on the hub; the names of splits and streams must consist "
            "of letters, digits, `_` and `-`, and that of a shard also of `.`; rename it."
        )
    return parsed


def list_other_files(root: Path, files: Collection[Path]) -> list[str]:
    """The files in `root` that are not in `files`, relative to it; files that the hub has anew do not count."""
    known = set(files)
    others = (str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and file not in known)
    return sorted(name for name in others if name not in REPOSITORY_FILES)


def format_checksums(checksums: Mapping[str, str]) -> str:
    """The text of SHA256SUMS, which `sha256sum --check` reads: path -> sum."""
    return "".join(f"{checksum}  {path}\n" for path, checksum in sorted(checksums.items()))


def parse_checksums(text: str, repo_id: str) -> dict[DatasetPath, str]:
    """Path -> sum in the text of SHA256SUMS.

    Raises:
        UserError: a line is malformed, or names what is not a file of a dataset.
    """
    checksums, invalid = {}, []
    for line in text.splitlines():
        match = CHECKSUM_LINE.fullmatch(line)
        path = match and DatasetPath.parse(match[2])
        if match and path:
            checksums[path] = match[1]
        else:
            invalid.append(line[65:].strip() or line)
    if invalid:
        raise UserError(
            f"{CHECKSUMS} of {repo_id} names what is no file of a dataset ({summarize_names(invalid)}); nothing was "
            "downloaded. Ask the owner to upload the dataset with `signllava prepare push`."
        )
    return checksums
