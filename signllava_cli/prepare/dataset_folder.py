"""Lists the splits of a dataset folder, and the streams of a split."""

from collections.abc import Collection
from pathlib import Path

from signllava_cli.data.stream_files import DefaultLocation, StreamLocation, find_metadata
from signllava_cli.errors import UserError

STANDARD_SPLITS = ("train", "dev", "test")


def require_data_folder(root: Path) -> None:
    """Check that there is a folder `root`.

    Raises:
        UserError: there is none.
    """
    if not root.is_dir():
        raise UserError(f"No data folder at {root}; create one with a command of `signllava prepare --help`.")


def list_splits(root: Path) -> list[str]:
    """The splits that have an annotation file: train, dev, test, then the others.

    Raises:
        UserError: the folder is missing, or has no annotation file.
    """
    require_data_folder(root)
    names = [file.name.removeprefix("annotation.").removesuffix(".json") for file in root.glob("annotation.*.json")]
    splits = sorted(name for name in names if name and not name.endswith(".fixed"))
    splits.sort(key=lambda name: STANDARD_SPLITS.index(name) if name in STANDARD_SPLITS else len(STANDARD_SPLITS))
    if not splits:
        raise UserError(
            f"No annotation.SPLIT.json in {root}; create one with a command of `signllava prepare --help`."
        )
    return splits


def list_streams(root: Path, split: str) -> dict[str, StreamLocation]:
    """The streams of `root` that have a metadata file for `split`."""
    streams: dict[str, StreamLocation] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        location = DefaultLocation()
        try:
            find_metadata(root, split, folder.name, location)
        except UserError:
            continue
        streams[folder.name] = location
    return streams


def require_known(kind: str, chosen: Collection[str], existing: Collection[str], place: str) -> None:
    """Check that the splits or streams that were chosen exist.

    Raises:
        UserError: one does not.
    """
    if unknown := [name for name in chosen if name not in existing]:
        raise UserError(f"No {kind} {unknown[0]} in {place}; its {kind}s: {', '.join(existing) or 'none'}.")
