"""`signllava prepare extract --compare`: how far two extractions of the same clips differ, by group of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from signllava_cli.console import info, print_line, print_table, warning
from signllava_cli.data.feature_stream import FeatureStream
from signllava_cli.data.keypoints import NUM_POINTS, POINT_OFFSETS, TOTAL_POINTS
from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.prepare.extract.pose_quality import NAMES
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Stream

MAX_CLIPS = 2000  # evenly spaced over the split; medians of more are not more exact
CROP_PARTS = ("face", "left hand", "right hand")
# Two routes to the landmarks of one video, the old and the new API of MediaPipe, differ by a median of 0.003 shoulder
# widths, 0.014 at the 95th percentile. Some times as much is noise to a model; more is another extraction.
MAX_MEDIAN, MAX_P95, MAX_MISSING = 0.01, 0.05, 0.02


@dataclass(frozen=True)
class Group:
    """Numbers that belong together: the columns of a part of the body. `is_points`: they are points (x, y)."""

    name: str
    columns: slice
    is_points: bool

    def has(self, frames: np.ndarray) -> np.ndarray:
        """Whether each of `frames` (T, width) has the part, bool (T,): all points of a missing one are the same."""
        if not self.is_points:
            return np.ones(len(frames), bool)
        points = frames[:, self.columns].reshape(len(frames), -1, 2)
        return (points != points[:, :1]).any(axis=(1, 2))

    def distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of points their distance, of vectors that relative to their mean length; float64, flat.

        Args:
            first, second: (T, width), the frames that have the part.
        """
        first, second = first[:, self.columns], second[:, self.columns]
        if self.is_points:
            return np.linalg.norm((first - second).reshape(-1, 2), axis=1)
        lengths = (np.linalg.norm(first, axis=1) + np.linalg.norm(second, axis=1)) / 2
        return np.linalg.norm(first - second, axis=1) / np.maximum(lengths, 1e-9)


@dataclass
class GroupDifferences:
    """The differences in one group, collected clip by clip.

    `distances`: see `Group.distances`. `frames`: that were compared. `only_first`, `only_second`: frames in which
    only one of the two extractions has the part.
    """

    group: Group
    distances: list[np.ndarray] = field(default_factory=list)
    frames: int = 0
    only_first: int = 0
    only_second: int = 0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Compare the frames of a clip, (T, width) each."""
        in_first, in_second = self.group.has(first), self.group.has(second)
        self.frames += len(first)
        self.only_first += int((in_first & ~in_second).sum())
        self.only_second += int((in_second & ~in_first).sum())
        both = in_first & in_second
        self.distances.append(self.group.distances(first[both], second[both]))

    @property
    def percentiles(self) -> tuple[float, float]:
        """The median and the 95th percentile of the distances; NaN without any."""
        values = np.concatenate(self.distances)
        return (float(np.median(values)), float(np.percentile(values, 95))) if len(values) else (np.nan, np.nan)

    @property
    def is_small(self) -> bool:
        """Whether a model may learn from both extractions together."""
        median, p95 = self.percentiles
        missing = (self.only_first + self.only_second) / self.frames
        return not (median > MAX_MEDIAN or p95 > MAX_P95 or missing > MAX_MISSING)


def compare_streams(first: Path, second: Path, split: str, stream: str) -> list[GroupDifferences]:
    """Print how far a stream of the dataset folders `first` and `second` differs, and whether they may be mixed.

    Raises:
        UserError: a stream is missing, the meaning of the numbers differs, or no clip has the same length in both.
    """
    opened = [_open_stream(root, split, stream) for root in (first, second)]
    _require_same_meaning(stream, opened, (first, second))
    pairs = _match_clips(stream, split, opened, (first, second))
    groups = _choose_groups(stream, opened[0].config.width)
    differences = [GroupDifferences(group) for group in groups]
    for rows in pairs[:: -(-len(pairs) // MAX_CLIPS)]:
        frames = [each.read(each.index.clip(row)).astype(float) for each, row in zip(opened, rows, strict=True)]
        for each in differences:
            each.add(*frames)
    _print_differences(stream, split, differences, (first, second))
    return differences


def _open_stream(root: Path, split: str, stream: str) -> FeatureStream:
    index = open_index(root, split, {stream: DefaultLocation()})
    return FeatureStream(index, stream, Stream(width=int(index.widths(stream).max(initial=1))))


def _require_same_meaning(stream: str, opened: Sequence[FeatureStream], roots: tuple[Path, Path]) -> None:
    widths, layouts = [each.config.width for each in opened], [each.layout for each in opened]
    if widths[0] != widths[1]:
        raise UserError(
            f"Stream {stream} has width {widths[0]} in {roots[0]}, and {widths[1]} in {roots[1]}, which no projector "
            "takes both."
        )
    if layouts[0] != layouts[1]:
        if all(layouts):
            raise UserError(
                f"Stream {stream} has layout {layouts[0]} in {roots[0]}, and {layouts[1]} in {roots[1]}; their "
                "numbers mean something else, and they must not be mixed."
            )
        warning(f"the layout of stream {stream} in {roots[layouts.index(None)]} is unknown")


def _match_clips(
    stream: str, split: str, opened: Sequence[FeatureStream], roots: tuple[Path, Path]
) -> list[tuple[int, int]]:
    """The rows of the clips that have the same number of frames in both; the others are counted and named."""
    rows = [{each.index.id(row): row for row in np.flatnonzero(each.frame_counts).tolist()} for each in opened]
    shared = [clip for clip in rows[0] if clip in rows[1]]
    pairs = [(rows[0][clip], rows[1][clip]) for clip in shared]
    lengths = [(opened[0].frame_counts[a], opened[1].frame_counts[b]) for a, b in pairs]
    for root, own, other in zip(roots, rows, rows[::-1], strict=True):
        if only := [clip for clip in own if clip not in other]:
            warning(f"only {root} has {format_count(len(only), 'clip')} ({summarize_names(only)})")
    if different := [
        f"{clip}: {a} and {format_count(b, 'frame')}" for clip, (a, b) in zip(shared, lengths, strict=True) if a != b
    ]:
        count = format_count(len(different), "clip has", "clips have")
        warning(f"{count} another length and cannot be compared ({summarize_names(different)})")
    same = [pair for pair, (a, b) in zip(pairs, lengths, strict=True) if a == b]
    if not same:
        raise UserError(
            f"Stream {stream} of split {split}: no clip has the same number of frames in {roots[0]} and {roots[1]}."
        )
    info(f"comparing {format_count(min(len(same), MAX_CLIPS), 'clip')} of {len(shared)} in both")
    return same


def _choose_groups(stream: str, width: int) -> list[Group]:
    if width == 2 * TOTAL_POINTS:
        return [
            Group(NAMES[part].replace("_", " "), slice(2 * start, 2 * (start + NUM_POINTS[part])), True)
            for part, start in POINT_OFFSETS.items()
        ]
    if stream == "dino" and width % len(CROP_PARTS) == 0:
        part_width = width // len(CROP_PARTS)
        return [
            Group(part, slice(number * part_width, (number + 1) * part_width), False)
            for number, part in enumerate(CROP_PARTS)
        ]
    return [Group("all", slice(0, width), False)]


def _print_differences(
    stream: str, split: str, differences: Sequence[GroupDifferences], roots: tuple[Path, Path]
) -> None:
    """Print a table, and the conclusion."""
    is_points = differences[0].group.is_points
    unit = "distance of points, as stored" if is_points else "distance of vectors / their length"
    rows = []
    for each in differences:
        median, p95 = each.percentiles
        shares = (f"{count / each.frames:.1%}" for count in (each.only_first, each.only_second))
        rows.append((each.group.name, each.frames, f"{median:.4f}", f"{p95:.4f}", *shares))
    columns = ("group", "frames", "median", "p95", "only in the first", "only in the second")
    print_table(f"{stream}, split {split}: {roots[0]} and {roots[1]} ({unit})", columns, rows)
    rule = f"median up to {MAX_MEDIAN}, p95 up to {MAX_P95}, in one alone in up to {MAX_MISSING:.0%} of the frames"
    if large := [each.group.name for each in differences if not each.is_small]:
        print_line(f"do not mix them: {summarize_names(large)} differ by more than the rule allows ({rule})")
    else:
        print_line(f"they may be mixed: all groups are within the rule ({rule})")
