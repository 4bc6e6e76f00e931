"""Assigns recordings to shards, before the first shard is written: a rerun continues with the same plan."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, HDF5FileCache, read_features, read_shape
from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import read_json
from signllava_cli.prepare.pack.find_clips import ClipLocations, find_example_key
from signllava_cli.prepare.pack.request import PackRequest
from signllava_cli.processes import BeforeFile

BYTES_PER_VALUE = 2
# the overhead of HDF5, measured with names of about twenty letters and rounded up
BYTES_PER_SHARD, BYTES_PER_RECORDING, BYTES_PER_CLIP = 4096, 512, 512


@dataclass(frozen=True)
class PackFingerprint:
    """The inputs of a plan: a rerun with other inputs needs another plan.

    `clips` is a SHA-256 of the annotated clips, `files` one of their locations and modification times.
    """

    sources: list[str]
    format: str
    pattern: str | None
    key: str | None
    shard_mb: float
    layout: str | None
    clips: str
    files: str

    @classmethod
    def of(cls, request: PackRequest, clips: Iterable[Clip], locations: ClipLocations) -> "PackFingerprint":
        """The fingerprint of this run."""
        return cls(
            sources=[str(source) for source in request.sources],
            format=request.format,
            pattern=request.pattern,
            key=request.key,
            shard_mb=request.shard_mb,
            layout=request.layout,
            clips=hashlib.sha256("\n".join(clip.id for clip in clips).encode()).hexdigest(),
            files=locations.digest(),
        )


@dataclass(frozen=True)
class PackPlan:
    """The width and the layout of all clips, and the shard of each recording that has an array."""

    fingerprint: PackFingerprint
    width: int
    layout: str | None
    shard_of: dict[str, int]

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        return max(self.shard_of.values()) + 1

    def to_json(self) -> dict[str, object]:
        """The content of the plan file."""
        return asdict(self)


def read_plan(file: Path) -> PackPlan:
    """The plan of an earlier run.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(file)
    try:
        plan = TypeAdapter(PackPlan).validate_json(json.dumps(content), strict=True)
        shards = sorted(set(plan.shard_of.values()))
        if not shards or shards != list(range(len(shards))):
            raise ValueError("its shards are not numbered from 0")
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        raise UserError(f"{file} is not a valid plan of `prepare pack`; give --overwrite to pack again.") from None
    return plan


def fingerprint_differences(planned: PackFingerprint, current: PackFingerprint) -> list[str]:
    """What differs between the plan's inputs and the current ones, for a message."""
    descriptions = {
        "clips": "the annotated clips",
        "files": "the source files (other clips have one, or they were written again)",
    }
    return [
        descriptions.get(name, f"{name} ({json.dumps(value)}, now {json.dumps(asdict(current)[name])})")
        for name, value in asdict(planned).items()
        if value != asdict(current)[name]
    ]


def make_plan(
    before_file: BeforeFile,
    fingerprint: PackFingerprint,
    recordings: Sequence[Recording],
    locations: ClipLocations,
) -> PackPlan:
    """Fill shard after shard with whole recordings, in annotation order; for `call_in_child`.

    Sizes come from the headers of `.npy` and HDF5. For other formats the ratio of stored size to file size is that of
    the first file of the format, so a shard may exceed `shard_mb` by some percent.

    Raises:
        UserError: no clip can be packed.
    """
    with HDF5FileCache(before_file) as handles:
        first = _first_features(fingerprint, locations, handles)
        width = first.frames.shape[1]
        sizes = _SizeEstimator(width, handles)
        max_bytes = fingerprint.shard_mb * 2**20
        shard_of: dict[str, int] = {}
        shard, shard_bytes = 0, BYTES_PER_SHARD
        with progress("measuring clips", len(locations.sources)) as bar:
            for recording in recordings:
                sources = [locations.sources[clip.id] for clip in recording.clips if clip.id in locations.sources]
                if not sources:
                    continue
                size = BYTES_PER_RECORDING + sum(BYTES_PER_CLIP + sizes.estimate(source) for source in sources)
                if shard_bytes + size > max_bytes and shard_bytes > BYTES_PER_SHARD:
                    shard, shard_bytes = shard + 1, BYTES_PER_SHARD
                shard_of[recording.name] = shard
                shard_bytes += size
                bar.advance(len(sources))
    return PackPlan(fingerprint, width, fingerprint.layout or first.layout, shard_of)


def _first_features(fingerprint: PackFingerprint, locations: ClipLocations, handles: HDF5FileCache) -> ClipFeatures:
    """The features of the first readable clip: all clips must have its width and layout."""
    errors = [f"{clip}: {reason}" for clip, reason in locations.unusable.items()]
    for clip, source in locations.sources.items():
        try:
            return read_features(source, handles)
        except UnreadableClip as error:
            errors.append(f"{clip} in {source.file}: {error}")
    if errors:
        raise UserError(
            f"Nothing to pack: none of the {len(errors)} clips found is usable ({errors[0]}); replace them."
        )
    hdf5 = next((Path(source) for source in fingerprint.sources if Path(source).is_file()), None)
    example = f"; {hdf5} holds {escape_unprintable(find_example_key(hdf5, handles)) or 'nothing'}" if hdf5 else ""
    raise UserError(
        f"Nothing to pack: no SOURCE holds a file of any of the {len(locations.missing)} annotated clips "
        f"({summarize_names(locations.missing)}){example}; give their location with --pattern, or in HDF5 files with "
        "--key (fields in braces, such as {recording}/{clip}.npy; no wildcards)."
    )


class _SizeEstimator:
    """Estimates the stored size of each clip's features without reading them."""

    def __init__(self, width: int, handles: HDF5FileCache) -> None:
        self.width, self.handles = width, handles
        self.compression: dict[str, float] = {}  # format -> stored bytes per byte of a file

    def estimate(self, source: ClipSource) -> int:
        """Bytes."""
        shape = read_shape(source, self.handles)
        if shape is not None:
            return shape[0] * self.width * BYTES_PER_VALUE if len(shape) == 2 else 0
        try:
            size = source.file.stat().st_size
            if source.format not in self.compression:
                self.compression[source.format] = read_features(source, self.handles).frames.nbytes / size
        except (OSError, UnreadableClip):
            return 0  # it will be skipped
        return int(size * self.compression[source.format])
