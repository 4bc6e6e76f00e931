"""What a dataset folder holds: its splits, and the streams of a split."""

from pathlib import Path

from signllava_cli.data.stream_files import DefaultLocation, StreamLocation, find_metadata
from signllava_cli.errors import UserError

USUAL_SPLITS = ("train", "dev", "test")


def list_splits(root: Path) -> list[str]:
    """The names of the splits that have an annotation file: train, dev, test, and others after them.

    Raises:
        UserError: there is no such folder, or no annotation in it.
    """
    if not root.is_dir():
        raise UserError(f"No data folder at {root}; `signllava prepare --help` names what makes one.")
    names = [file.name.removeprefix("annotation.").removesuffix(".json") for file in root.glob("annotation.*.json")]
    splits = sorted(name for name in names if name and not name.endswith(".fixed"))
    splits.sort(key=lambda name: USUAL_SPLITS.index(name) if name in USUAL_SPLITS else len(USUAL_SPLITS))
    if not splits:
        raise UserError(f"No annotation.SPLIT.json in {root}; `signllava prepare --help` names what makes one.")
    return splits


def list_streams(root: Path, split: str) -> dict[str, StreamLocation]:
    """The streams whose metadata file for `split` lies in a folder of `root`."""
    streams: dict[str, StreamLocation] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        config = DefaultLocation()
        try:
            find_metadata(root, split, folder.name, config)
        except UserError:
            continue
        streams[folder.name] = config
    return streams
