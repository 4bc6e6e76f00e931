"""Writes one shard: read, check, store, clip by clip. Skipped clips are listed in the shard itself."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, HDF5FileCache, read_features
from signllava_cli.data.keypoints import LAYOUT_POINTS, NORMALIZATION_DESCRIPTION
from signllava_cli.data.shard import LAYOUT
from signllava_cli.errors import UserError


class DeferredErrorFile(io.FileIO):
    """A file to write and read; once a write has failed, nothing more is written and `check` raises."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`; a error is kept for `check`."""
        left = memoryview(data).cast("B")
        try:
            while left and self.error is None:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file; a error is kept for `check`."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raises OSError if something could not be written."""
        if self.error is not None:
            raise self.error


SKIPPED_ATTRIBUTE = "left_out"  # attribute of a shard: {recording/clip: why} as JSON


@dataclass(frozen=True)
class Shard:
    """The work of one shard: `clips`, by `recording/clip`, go to `file` if they have the width D and layout of all.

    Where the user named the layout (`is_layout_named`), that of a source does not count.
    """

    file: Path
    clips: dict[str, ClipSource]
    width: int
    layout: str | None = None
    is_layout_named: bool = False


def write_shard(shard: Shard, to: Path, after_clip: Callable[[], None]) -> None:
    """Write the shard into the file `to`, down to the disk. The bytes are a function of the content alone.

    Raises:
        UserError: `to` cannot be written.
    """
    left_out = {}
    try:
        with DeferredErrorFile(to) as written:
            with h5py.File(written, "w", libver="v110") as handle, HDF5FileCache() as sources:
                for clip, source in shard.clips.items():
                    try:
                        _store(handle, clip, _like_all(read_features(source, sources), shard))
                    except UnreadableClip as error:
                        left_out[clip] = str(error)
                    written.check()
                    after_clip()
                if shard.layout is not None:
                    handle.attrs[LAYOUT] = shard.layout
                handle.attrs[SKIPPED_ATTRIBUTE] = json.dumps(left_out)
            written.check()
            os.fsync(written.fileno())
    except OSError as error:
        raise UserError(f"{shard.file} cannot be written: {error.strerror or error}.") from None


def read_skipped(file: Path) -> dict[str, str]:
    """The clips that were left out of a shard, and why.

    Raises:
        UserError: the file is damaged, or another tool wrote it.
    """
    try:
        with h5py.File(file, "r") as handle:
            return dict(json.loads(handle.attrs[SKIPPED_ATTRIBUTE]))
    except (OSError, RuntimeError, KeyError, ValueError):
        raise UserError(
            f"{file} is damaged, or not of `prepare pack`: remove it, and run the command again."
        ) from None


def _like_all(features: ClipFeatures, shard: Shard) -> ClipFeatures:
    if features.frames.shape[1] != shard.width:
        raise UnreadableClip(f"width {features.frames.shape[1]}, but the first clip's is {shard.width}")
    if features.layout != shard.layout and not shard.is_layout_named:
        raise UnreadableClip(
            f"layout {features.layout or 'unknown'}, but the first clip's is {shard.layout or 'unknown'}; if it is "
            "the same, name it with --layout"
        )
    return features


def _store(handle: h5py.File, clip: str, features: ClipFeatures) -> None:
    dataset = handle.create_dataset(clip, data=features.frames)
    if features.normalization is not None:
        dataset.attrs["center"] = features.normalization.center
        dataset.attrs["scale"] = features.normalization.scale
        handle.attrs["points"], handle.attrs["normalization"] = LAYOUT_POINTS, NORMALIZATION_DESCRIPTION
