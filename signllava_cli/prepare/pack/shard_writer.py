"""Writes one shard clip by clip: read, check, store. An attribute of the shard lists the skipped clips."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, HDF5FileCache, read_features
from signllava_cli.data.hdf5_attributes import read_attribute
from signllava_cli.data.keypoints import LAYOUT_DESCRIPTION, LAYOUT_POINTS, NORMALIZATION_DESCRIPTION
from signllava_cli.data.shard import HDF5_ERRORS, LAYOUT
from signllava_cli.errors import UserError
from signllava_cli.processes import limit_cpu_time


class DeferredErrorFile(io.FileIO):
    """A file whose `write` never raises: after a failed write nothing more is written, and `check` raises.

    HDF5 prints tracebacks or crashes when a write raises.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`; an error is kept for `check`."""
        remaining = memoryview(data).cast("B")
        try:
            while remaining and self.error is None:
                remaining = remaining[super().write(remaining) or 0 :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Resize the file; an error is kept for `check`."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raises OSError if something could not be written."""
        if self.error is not None:
            raise self.error


SKIPPED_ATTRIBUTE = "skipped"  # attribute of a shard: {recording/clip: reason} as JSON


@dataclass(frozen=True)
class Shard:
    """The shard to write to `file`: `clips` (`recording/clip` -> array) that have this width and layout.

    `ignore_source_layout`: the user named the layout, so the layouts of the sources are not checked.
    `crashes`: clips that crashed the process that read them, with the reason.
    """

    file: Path
    clips: dict[str, ClipSource]
    width: int
    layout: str | None = None
    ignore_source_layout: bool = False
    crashes: Mapping[str, str] = field(default_factory=dict)


def write_shard(shard: Shard, temporary: Path, after_clip: Callable[[], None]) -> None:
    """Write the shard to the file `temporary` and fsync it. The bytes depend only on the content.

    Raises:
        UserError: `temporary` cannot be written.
    """
    skipped = {}
    try:
        with DeferredErrorFile(temporary) as shard_file:
            with h5py.File(shard_file, "w", libver="v110") as handle, HDF5FileCache() as sources:
                for clip, source in shard.clips.items():
                    limit_cpu_time()  # HDF5 never returns from some damaged files
                    try:
                        if clip in shard.crashes:
                            raise UnreadableClip(shard.crashes[clip])
                        _store(handle, clip, _require_same_kind(read_features(source, sources), shard))
                    except UnreadableClip as error:
                        skipped[clip] = str(error)
                    shard_file.check()
                    after_clip()
                if shard.layout is not None:
                    handle.attrs[LAYOUT] = shard.layout
                handle.attrs[SKIPPED_ATTRIBUTE] = json.dumps(skipped)
            shard_file.check()
            os.fsync(shard_file.fileno())
    except OSError as error:
        raise UserError(f"{shard.file} cannot be written: {error.strerror or error}.") from None


def read_skipped(file: Path) -> dict[str, str]:
    """The clips skipped in a shard: `recording/clip` -> reason.

    Raises:
        UserError: the file is damaged, or `prepare pack` did not write it.
    """
    try:
        with h5py.File(file, "r") as handle:
            return dict(json.loads(read_attribute(handle, SKIPPED_ATTRIBUTE)))
    except HDF5_ERRORS:
        raise UserError(
            f"{file} is damaged, or `prepare pack` did not write it; remove it, and run the command again."
        ) from None


def _require_same_kind(features: ClipFeatures, shard: Shard) -> ClipFeatures:
    if features.frames.shape[1] != shard.width:
        raise UnreadableClip(f"width {features.frames.shape[1]}, but the first clip's is {shard.width}")
    if features.layout != shard.layout and not shard.ignore_source_layout:
        raise UnreadableClip(
            f"layout {features.layout or 'unknown'}, but the first clip's is {shard.layout or 'unknown'}; if "
            "they are the same, name the layout with --layout"
        )
    return features


def _store(handle: h5py.File, clip: str, features: ClipFeatures) -> None:
    dataset = handle.create_dataset(clip, data=features.frames)
    if features.normalization is not None:
        dataset.attrs["center"] = features.normalization.center
        dataset.attrs["scale"] = features.normalization.scale
    if features.normalization is not None and features.layout == LAYOUT_DESCRIPTION:
        handle.attrs["points"], handle.attrs["normalization"] = LAYOUT_POINTS, NORMALIZATION_DESCRIPTION
