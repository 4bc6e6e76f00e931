"""The files of one recording between extraction and packing: a complete file is never computed again."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signllava_cli.data.hdf5_attributes import read_attribute
from signllava_cli.data.shard import HDF5_ERRORS, LAYOUT, describe_excess
from signllava_cli.errors import UserError
from signllava_cli.files import TEMPORARY_SUFFIX, atomic_file
from signllava_cli.prepare.extract.clip_extractor import ExtractedClip
from signllava_cli.prepare.extract.video_cuts import VideoCut
from signllava_cli.prepare.pack.shard_writer import DeferredErrorFile
from signllava_cli.prepare.pack.stream_paths import StreamPaths

FINGERPRINT, SKIPPED, QUALITY = "fingerprint", "skipped", "quality"


@dataclass(frozen=True)
class ExtractPaths:
    """Where `prepare extract` writes beside the shards of a stream."""

    stream: StreamPaths

    @property
    def report(self) -> Path:
        """The report: what was extracted with which settings, and how well. Written last."""
        return self.stream.folder / f"extract.{self.stream.stream}.{self.stream.split}.json"

    @property
    def contact_sheet(self) -> Path:
        """Pictures of the clips that should be looked at."""
        return self.report.with_suffix(".html")

    @property
    def features_folder(self) -> Path:
        """A file per recording, with the features of its clips; removed when they are packed."""
        return self.stream.folder / f"extract.{self.stream.split}" / "features"

    @property
    def arrays_folder(self) -> Path:
        """A file per recording, with other arrays of its clips (boxes, times); kept for other streams."""
        return self.stream.folder / f"extract.{self.stream.split}" / "arrays"

    def features(self, recording: str) -> Path:
        """The features of a recording: a dataset per clip."""
        return self.features_folder / f"{recording}.h5"

    def arrays(self, recording: str) -> Path:
        """The other arrays of a recording: a group per clip."""
        return self.arrays_folder / f"{recording}.h5"


def fingerprint_of(settings: Mapping[str, object], cuts: Mapping[str, VideoCut]) -> str:
    """SHA-256 of what the features of a recording depend on; of the videos size and modification time."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for clip, cut in cuts.items():
        try:
            stat = cut.file.stat()
        except OSError:
            stat = None
        version = "" if stat is None else f"{stat.st_size}\0{stat.st_mtime_ns}"
        digest.update(f"\n{clip}\0{cut.file.name}\0{version}\0{cut.start}\0{cut.end}".encode())
    return digest.hexdigest()


def write_recording(
    paths: ExtractPaths, recording: str, fingerprint: str, clips: Mapping[str, ExtractedClip], skipped: dict[str, str]
) -> None:
    """Write the files of a recording, the features last. The bytes depend only on the content.

    Raises:
        UserError: they cannot be written.
    """
    if any(extracted.arrays for extracted in clips.values()):
        with _hdf5_writer(paths.arrays(recording)) as handle:
            handle.attrs[FINGERPRINT] = fingerprint
            for clip, extracted in clips.items():
                for name, values in extracted.arrays.items():
                    handle.create_dataset(f"{clip}/{name}", data=values)
    else:  # those of another version of the video
        paths.arrays(recording).unlink(missing_ok=True)
    layouts = {extracted.features.layout for extracted in clips.values() if extracted.features.layout}
    with _hdf5_writer(paths.features(recording)) as handle:
        handle.attrs[FINGERPRINT] = fingerprint
        handle.attrs[SKIPPED] = json.dumps(skipped)
        handle.attrs[QUALITY] = json.dumps({clip: extracted.quality for clip, extracted in clips.items()})
        for layout in layouts:
            handle.attrs[LAYOUT] = layout
        for clip, extracted in clips.items():
            dataset = handle.create_dataset(clip, data=extracted.features.frames)
            if extracted.features.normalization is not None:
                dataset.attrs["center"] = extracted.features.normalization.center
                dataset.attrs["scale"] = extracted.features.normalization.scale


@contextlib.contextmanager
def _hdf5_writer(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, under its final name only when it is complete."""
    with atomic_file(path, is_shared=True) as temporary, DeferredErrorFile(temporary) as file:
        with h5py.File(file, "w", libver="v110") as handle:
            yield handle
        file.check()


@dataclass(frozen=True)
class RecordingResult:
    """What a recording's file says of its clips. `skipped`: clip -> reason. `quality`: clip -> its measurements."""

    skipped: dict[str, str]
    quality: dict[str, dict[str, Any] | None]


def read_result(file: Path) -> RecordingResult:
    """The result in a features file.

    Raises:
        UserError: it is damaged.
    """
    try:
        with h5py.File(file, "r") as handle:
            skipped, quality = (dict(json.loads(read_attribute(handle, name))) for name in (SKIPPED, QUALITY))
            return RecordingResult(skipped, quality)
    except HDF5_ERRORS:
        raise UserError(f"{file} is damaged; remove it, and run the command again.") from None


def read_fingerprint(file: Path) -> str | None:
    """The fingerprint of a recording's file; None if it is missing or damaged."""
    try:
        with h5py.File(file, "r") as handle:
            fingerprint = read_attribute(handle, FINGERPRINT)
            return None if fingerprint is None else str(fingerprint)
    except HDF5_ERRORS:
        return None


def read_arrays(file: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a recording: clip -> name -> array; nothing without a file, if no clip could be extracted.

    Raises:
        UserError: the file is damaged.
    """
    if not file.exists():
        return {}
    try:
        with h5py.File(file, "r") as handle:
            return {clip: {name: _read(values) for name, values in group.items()} for clip, group in handle.items()}
    except HDF5_ERRORS:
        raise UserError(f"{file} is damaged; extract stream pose of this split again.") from None


def _read(dataset: h5py.Dataset) -> np.ndarray:
    if error := describe_excess(dataset.id):
        raise ValueError(error)
    return np.asarray(dataset[()])


def remove_temporary_files(paths: ExtractPaths, recordings: Collection[str]) -> None:
    """Remove what killed processes have left of these recordings; other recordings may be those of other jobs."""
    name = re.compile(rf"(.*)\.h5\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}")
    for folder in (paths.features_folder, paths.arrays_folder):
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if (match := name.fullmatch(entry.name)) and match[1] in recordings:
                Path(entry.path).unlink(missing_ok=True)
