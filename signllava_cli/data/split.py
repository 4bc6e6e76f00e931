"""One split of a dataset, opened: its recordings, its feature streams, and the clips that have features."""

import hashlib
from pathlib import Path

import numpy as np

from signllava_cli.console import warn
from signllava_cli.data.annotations import Clip, annotation_file, read_annotations
from signllava_cli.data.features import FeatureStream, clips_without_features
from signllava_cli.errors import UserError, first_names
from signllava_cli.recipe import Recipe


class Split:
    """The clips of `split` in dataset order, with their streams in the recipe's order.

    `annotated` are all clips; `clips` have features in every stream. `missing` names the others
    (id -> streams), which exist only when the recipe says `data.missing: skip`; their sentences still stand in
    `recordings`, because they were signed and are context to the clips after them.

    Raises:
        UserError: anything that annotations or shards lack, and clips without features unless skipped.
    """

    def __init__(self, recipe: Recipe, split: str) -> None:
        root = Path(recipe.data.root).expanduser()
        self.name, self.root = split, root
        self.recordings = {recording.name: recording for recording in read_annotations(root, split)}
        self.streams = [FeatureStream(root, split, name, settings) for name, settings in recipe.streams.items()]
        self.annotated = [clip for recording in self.recordings.values() for clip in recording.clips]
        self.missing = clips_without_features(self.annotated, self.streams)
        self.clips = [clip for clip in self.annotated if clip.id not in self.missing]
        if self.missing:
            report = (
                f"Split {split} of {root}: {len(self.missing)} of {len(self.annotated)} clips have no features "
                f"({first_names(f'{clip} in {streams}' for clip, streams in self.missing.items())})"
            )
            if recipe.data.missing == "error" or not self.clips:
                raise UserError(f"{report}; complete the streams, or set data.missing=skip.")
            warn(f"{report}; they are skipped.")

    def read(self, clip: Clip) -> dict[str, np.ndarray]:
        """The frames of `clip`: stream name -> float16 array (T, width), T differing per stream."""
        return {stream.name: stream.read(clip) for stream in self.streams}

    def fingerprint(self) -> str:
        """SHA-256 over the annotation and metadata files, and the names and sizes of the shards."""
        digest = hashlib.sha256(annotation_file(self.root, self.name).read_bytes())
        for stream in self.streams:
            metadata, *shards = stream.files
            digest.update(metadata.read_bytes())
            digest.update("".join(f"{shard.name}:{shard.stat().st_size}\n" for shard in shards).encode())
        return digest.hexdigest()
