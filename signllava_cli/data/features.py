"""The HDF5 shards of one stream: where they lie, how long each clip is, and its frames.

A group per recording, a dataset per clip, float16, shape (T, D). Handles are opened on first use in each
process: an HDF5 file opened before a fork reads wrong data after it.
"""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.errors import UserError, first_names
from signllava_cli.files import read_json
from signllava_cli.recipe import Stream


class FeatureStream:
    """The features of one stream and split, read clip by clip.

    Raises:
        UserError: no metadata file fits, or a shard that it names is missing; says which names were tried.
    """

    def __init__(self, root: Path, split: str, name: str, settings: Stream) -> None:
        self.name, self.settings = name, settings
        self.folder = Path(settings.folder).expanduser() if settings.folder else root / name
        self.metadata_file = self._find_metadata(split)
        self._shard_of = {rec: str(shard) for rec, shard in read_json(self.metadata_file).items()}
        self._file_of = {shard: self._find_shard(split, shard) for shard in set(self._shard_of.values())}
        self._handles: dict[Path, h5py.File] = {}
        self._process = os.getpid()

    @property
    def files(self) -> list[Path]:
        """The metadata file and every shard, sorted."""
        return [self.metadata_file, *sorted(self._file_of.values())]

    def frame_count(self, clip: Clip) -> int:
        """The number of frames T stored for `clip`; 0 when it has none.

        Raises:
            UserError: the clip's array is not (T, width).
        """
        dataset = self._dataset(clip)
        if dataset is None:
            return 0
        if dataset.ndim != 2 or dataset.shape[1] != self.settings.width:
            raise UserError(
                f"Stream {self.name}, clip {clip.id} in {dataset.file.filename}: shape {dataset.shape}, but the "
                f"recipe says streams.{self.name}.width={self.settings.width}."
            )
        return int(dataset.shape[0])

    def read(self, clip: Clip) -> np.ndarray:
        """The frames of `clip`, float16 of shape (T, width), every `stride`-th and at most `max_frames`.

        Raises:
            UserError: the clip has no frames, or one that is NaN or infinite.
        """
        dataset = self._dataset(clip)
        if dataset is None or not len(dataset):
            raise UserError(f"Stream {self.name} has no frames of clip {clip.id}.")
        try:
            frames = dataset[:: self.settings.stride]
        except OSError as fault:
            raise UserError(f"{dataset.file.filename} is damaged at clip {clip.id}: {fault}.") from None
        with np.errstate(over="ignore"):
            frames = frames.astype(np.float16, copy=False)
        if not np.isfinite(frames).all():
            raise UserError(
                f"Stream {self.name}, clip {clip.id} in {dataset.file.filename} holds NaN, or values that float16 "
                "cannot; extract its features again or take the clip out of the annotation."
            )
        limit = self.settings.max_frames
        return frames if limit is None or len(frames) <= limit else thin(frames, limit)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handles": {}}  # a worker that was not forked opens its own, too

    def _dataset(self, clip: Clip) -> h5py.Dataset | None:
        shard = self._shard_of.get(clip.recording)
        if shard is None:
            return None
        found = self._open(self._file_of[shard]).get(f"{clip.recording}/{clip.name}")
        if found is not None and (not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu"):
            raise UserError(
                f"Stream {self.name}, clip {clip.id} in {self._file_of[shard]}: expected a dataset of numbers."
            )
        return found

    def _open(self, file: Path) -> h5py.File:
        if self._process != os.getpid():
            self._handles, self._process = {}, os.getpid()
        if file not in self._handles:
            try:
                self._handles[file] = h5py.File(file, "r")
            except OSError as fault:
                raise UserError(f"{file} is no readable HDF5 file ({fault}); copy or pack it again.") from None
        return self._handles[file]

    def _find_metadata(self, split: str) -> Path:
        """The explicit pattern; else the layout's rule; else the only other file that can be meant."""
        if not self.folder.is_dir():
            raise UserError(
                f"No folder {self.folder} for stream {self.name}; set streams.{self.name}.folder, or data.root."
            )
        if self.settings.metadata:
            tried = [self.folder / self.settings.metadata.format(split=split)]
        else:
            tried = [self.folder / f"metadata_{self.name}.{split}.json"]
            for pattern in (f"metadata_*.{glob.escape(split)}.json", f"*.{glob.escape(split)}.json"):
                candidates = sorted(self.folder.glob(pattern))
                tried += candidates if len(candidates) == 1 else []
        for file in tried:
            if file.is_file():
                return file
        raise UserError(
            f"Stream {self.name} has no metadata file for split {split} in {self.folder} "
            f"(tried {first_names(file.name for file in tried)}); set streams.{self.name}.metadata."
        )

    def _find_shard(self, split: str, shard: str) -> Path:
        """The explicit pattern; else the rule of the layout; else the one file that ends in its number."""
        if self.settings.shards:
            tried = [self.folder / self.settings.shards.format(split=split, shard=shard)]
        else:
            stem = self.metadata_file.name.removeprefix("metadata_").removesuffix(".json")
            tried = [self.folder / f"{stem}.{shard}.h5", self.folder / f"{self.name}.{split}.{shard}.h5"]
            candidates = sorted(self.folder.glob(f"*.{glob.escape(split)}.{glob.escape(shard)}.h5"))
            tried += candidates if len(candidates) == 1 else []
        for file in tried:
            if file.is_file():
                return file
        recordings = [recording for recording, its in self._shard_of.items() if its == shard]
        raise UserError(
            f"Stream {self.name}: shard {shard} of split {split} is missing (tried "
            f"{first_names(dict.fromkeys(str(file) for file in tried))}); it holds {first_names(recordings)}."
        )


def thin(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` of the frames (T, D), evenly spaced from the first to the last."""
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def clips_without_features(clips: Iterable[Clip], streams: Iterable[FeatureStream]) -> dict[str, str]:
    """The ids of clips that some stream has no frames of, each with the names of these streams."""
    streams = list(streams)
    missing = {}
    for clip in clips:
        empty = [stream.name for stream in streams if not stream.frame_count(clip)]
        if empty:
            missing[clip.id] = ", ".join(empty)
    return missing
