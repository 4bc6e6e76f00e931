"""Writes a split of a dataset folder: the annotation, and the metadata and shards of each stream."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signllava_cli.data.annotations import Clip, Recording, annotation_file
from signllava_cli.files import atomic_file, write_json


def write_annotations(root: Path, split: str, recordings: Sequence[Recording]) -> None:
    """Write `annotation.{split}.json`."""
    content = {
        recording.name: {
            "clip_order": [clip.name for clip in recording.clips],
            **{clip.name: _annotation_entry(clip) for clip in recording.clips},
        }
        for recording in recordings
    }
    write_json(annotation_file(root, split), content)


def write_stream(
    root: Path, split: str, name: str, recordings: Mapping[str, Mapping[str, np.ndarray]], num_shards: int
) -> None:
    """Write the shards of one stream: recording -> clip -> frames (T, width), stored as float16.

    Recordings are assigned to shards in turn. The bytes depend only on the content.
    """
    folder = root / name
    shard_of = {recording: number % num_shards for number, recording in enumerate(recordings)}
    for shard in range(num_shards):
        file = folder / f"{name}.{split}.{shard}.h5"
        with atomic_file(file) as temporary, h5py.File(temporary, "w", libver="v110") as handle:
            for recording, clips in recordings.items():
                if shard_of[recording] == shard:
                    for clip, frames in clips.items():
                        handle.create_dataset(f"{recording}/{clip}", data=frames.astype(np.float16))
    write_json(folder / f"metadata_{name}.{split}.json", shard_of)


def _annotation_entry(clip: Clip) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "translation": clip.translation,
        "paraphrases": list(clip.paraphrases),
        "keywords": list(clip.keywords),
    }
    if clip.start is not None and clip.end is not None:
        entry |= {"start": clip.start, "end": clip.end}
    if clip.source:
        entry["source"] = dict(clip.source)
    if clip.context_bound:
        bound = clip.context_bound
        entry["context_bound"] = {
            "needs": bound.needs,
            "reading": bound.reading,
            "others": list(bound.others),
        }
    return entry
