"""Which recording goes to which shard: settled before the first is written, so that a rerun goes on with it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import ClipFeatures, HDF5FileCache, read_features, read_shape
from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import read_json
from signllava_cli.prepare.pack.find import FoundClips, example_in
from signllava_cli.prepare.pack.request import PackRequest

BYTES_PER_VALUE = 2
# what HDF5 adds, measured with names of some twenty letters and rounded up
BYTES_PER_SHARD, BYTES_PER_RECORDING, BYTES_PER_CLIP = 4096, 512, 512


@dataclass(frozen=True)
class PackFingerprint:
    """What a plan was made for; where one of these differs, it is another plan.

    `clips` is a SHA-256 of the annotated clips, `files` one of where they lie and when they were written.
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
    def of(cls, request: PackRequest, clips: Iterable[Clip], found: FoundClips) -> "PackFingerprint":
        """What this run is asked for."""
        return cls(
            sources=[str(source) for source in request.sources],
            format=request.format,
            pattern=request.pattern,
            key=request.key,
            shard_mb=request.shard_mb,
            layout=request.layout,
            clips=hashlib.sha256("\n".join(clip.id for clip in clips).encode()).hexdigest(),
            files=found.digest(),
        )


@dataclass(frozen=True)
class PackPlan:
    """The width D and the layout of all clips, and the shard of each recording of which something was found."""

    asked: PackFingerprint
    width: int
    layout: str | None
    shard_of: dict[str, int]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return max(self.shard_of.values()) + 1

    def to_json(self) -> dict[str, object]:
        """What the plan file holds."""
        return asdict(self)


def read_plan(file: Path) -> PackPlan:
    """The plan that an earlier run left.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(file)
    try:
        return PackPlan(
            PackFingerprint(**content["asked"]), int(content["width"]), content["layout"], dict(content["shard_of"])
        )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} is no plan of `prepare pack`: give --overwrite to pack anew.") from None


def fingerprint_differences(then: PackFingerprint, now: PackFingerprint) -> list[str]:
    """What is asked for now and was not when the plan was made, in words."""
    words = {
        "clips": "the annotated clips",
        "files": "the source files (other clips have one, or they were written again)",
    }
    return [
        words.get(name, f"{name} ({json.dumps(value)}, now {json.dumps(asdict(now)[name])})")
        for name, value in asdict(then).items()
        if value != asdict(now)[name]
    ]


def make_plan(
    asked: PackFingerprint, recordings: Sequence[Recording], found: FoundClips, handles: HDF5FileCache
) -> PackPlan:
    """Fill shard after shard with recordings, in annotation order; none is split.

    Sizes come from the headers of `.npy` and HDF5. Other files are taken to shrink as much as the first of their
    format, so that a shard of theirs may pass the bound by some percent.

    Raises:
        UserError: not one clip can be packed.
    """
    first = _first_features(asked, found, handles)
    width = first.frames.shape[1]
    sizes = _SizeEstimator(width, handles)
    bound = asked.shard_mb * 2**20
    shard_of: dict[str, int] = {}
    shard, filled = 0, BYTES_PER_SHARD
    with progress("measuring clips", len(found.files)) as line:
        for recording in recordings:
            files = [found.files[clip.id] for clip in recording.clips if clip.id in found.files]
            if not files:
                continue
            size = BYTES_PER_RECORDING + sum(BYTES_PER_CLIP + sizes.of(file) for file in files)
            if filled + size > bound and filled > BYTES_PER_SHARD:
                shard, filled = shard + 1, BYTES_PER_SHARD
            shard_of[recording.name] = shard
            filled += size
            line.advance(len(files))
    return PackPlan(asked, width, asked.layout or first.layout, shard_of)


def _first_features(asked: PackFingerprint, found: FoundClips, handles: HDF5FileCache) -> ClipFeatures:
    """The first clip that can be read: its width and layout are those of all."""
    errors = [f"{clip}: {why}" for clip, why in found.unusable.items()]
    for clip, source in found.files.items():
        try:
            return read_features(source, handles)
        except UnreadableClip as error:
            errors.append(f"{clip} in {source.file}: {error}")
    if errors:
        raise UserError(f"Nothing to pack: none of the {len(errors)} clips found is usable ({errors[0]}).")
    hdf5 = next((Path(source) for source in asked.sources if Path(source).is_file()), None)
    example = f"; {hdf5} holds {escape_unprintable(example_in(hdf5, handles)) or 'nothing'}" if hdf5 else ""
    raise UserError(
        f"Nothing to pack: no SOURCE holds a file of any of the {len(found.missing)} annotated clips "
        f"({summarize_names(found.missing)}){example}; name where they lie with --pattern, or in HDF5 files with --key."
    )


class _SizeEstimator:
    """How many bytes each clip's features will take, without reading them."""

    def __init__(self, width: int, handles: HDF5FileCache) -> None:
        self.width, self.handles = width, handles
        self.shrinking: dict[str, float] = {}  # format -> bytes stored for each byte of a file

    def of(self, source: ClipSource) -> int:
        shape = read_shape(source, self.handles)
        if shape is not None:
            return shape[0] * self.width * BYTES_PER_VALUE if len(shape) == 2 else 0
        try:
            size = source.file.stat().st_size
            if source.format not in self.shrinking:
                self.shrinking[source.format] = read_features(source, self.handles).frames.nbytes / size
        except (OSError, UnreadableClip):
            return 0  # it will be left out
        return int(size * self.shrinking[source.format])
