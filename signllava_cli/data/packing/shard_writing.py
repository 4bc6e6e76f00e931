"""Writes one shard: read, check, store, clip after clip; what is left out is written into the shard itself."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from signllava_cli.data.packing.clip_file import ClipFile, Unreadable
from signllava_cli.data.packing.features import ClipFeatures, read_features
from signllava_cli.data.packing.landmarks import LAYOUT_POINTS, NORMALISATION
from signllava_cli.data.packing.open_hdf5 import OpenHdf5
from signllava_cli.data.packing.steady_file import SteadyFile
from signllava_cli.data.shard import LAYOUT
from signllava_cli.errors import UserError

LEFT_OUT = "left_out"  # attribute of a shard: {recording/clip: why} as JSON


@dataclass(frozen=True)
class Shard:
    """The work of one shard: `clips`, by `recording/clip`, go to `file` if they have the width D and layout of all.

    Where the user named the layout (`is_layout_named`), that of a source does not count.
    """

    file: Path
    clips: dict[str, ClipFile]
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
        with SteadyFile(to) as written:
            with h5py.File(written, "w", libver="v110") as handle, OpenHdf5() as sources:
                for clip, source in shard.clips.items():
                    try:
                        _store(handle, clip, _like_all(read_features(source, sources), shard))
                    except Unreadable as fault:
                        left_out[clip] = str(fault)
                    written.check()
                    after_clip()
                if shard.layout is not None:
                    handle.attrs[LAYOUT] = shard.layout
                handle.attrs[LEFT_OUT] = json.dumps(left_out)
            written.check()
            os.fsync(written.fileno())
    except OSError as fault:
        raise UserError(f"{shard.file} cannot be written: {fault.strerror or fault}.") from None


def read_left_out(file: Path) -> dict[str, str]:
    """The clips that were left out of a shard, and why.

    Raises:
        UserError: the file is damaged, or another tool wrote it.
    """
    try:
        with h5py.File(file, "r") as handle:
            return dict(json.loads(handle.attrs[LEFT_OUT]))
    except (OSError, RuntimeError, KeyError, ValueError):
        raise UserError(
            f"{file} is damaged, or not of `prepare pack`: remove it, and run the command again."
        ) from None


def _like_all(features: ClipFeatures, shard: Shard) -> ClipFeatures:
    if features.frames.shape[1] != shard.width:
        raise Unreadable(f"width {features.frames.shape[1]}, but the first clip's is {shard.width}")
    if features.layout != shard.layout and not shard.is_layout_named:
        raise Unreadable(
            f"layout {features.layout or 'unknown'}, but the first clip's is {shard.layout or 'unknown'}; if it is "
            "the same, name it with --layout"
        )
    return features


def _store(handle: h5py.File, clip: str, features: ClipFeatures) -> None:
    dataset = handle.create_dataset(clip, data=features.frames)
    if features.normalisation is not None:
        dataset.attrs["centre"] = features.normalisation.centre
        dataset.attrs["scale"] = features.normalisation.scale
        handle.attrs["points"], handle.attrs["normalisation"] = LAYOUT_POINTS, NORMALISATION
