"""Scores by kind of clip: the clips of a system in buckets, such as those with 3 to 4 sentences of context."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from signllava_cli.data.words import words
from signllava_cli.evaluation.metrics.base import MetricStatistics
from signllava_cli.evaluation.results import SystemResult
from signllava_cli.evaluation.systems import UNKNOWN
from signllava_cli.generation.prediction import Prediction


@dataclass(frozen=True)
class Grouping:
    """`title`: the heading of its table. `find_bucket`: the bucket of a clip; None for a clip that is in none."""

    title: str
    find_bucket: Callable[[Prediction], str | None]


@dataclass(frozen=True)
class BucketCell:
    """The number of clips of a system in a bucket, and their chrF2."""

    clips: int
    chrf2: float


@dataclass(frozen=True)
class BucketTable:
    """`rows`: each bucket with a cell per system; None for a system without clips in it."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[BucketCell | None, ...]], ...]


def score_buckets(rows: Sequence[Prediction], statistics: Mapping[str, MetricStatistics]) -> dict[str, Any]:
    """Name in `GROUPINGS` -> bucket -> `clips`, and the scores whose keys are those of `statistics`."""
    return {name: _score_grouping(rows, grouping, statistics) for name, grouping in GROUPINGS.items()}


def _score_grouping(
    rows: Sequence[Prediction], grouping: Grouping, statistics: Mapping[str, MetricStatistics]
) -> dict[str, dict[str, float]]:
    indices: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if (bucket := grouping.find_bucket(row)) is not None:
            indices[bucket].append(index)
    return {
        bucket: {
            "clips": len(indices[bucket]),
            **{
                key: round(metric_statistics.compute_scores(indices[bucket])[key], 2)
                for key, metric_statistics in statistics.items()
            },
        }
        for bucket in sort_buckets(indices)
    }


def make_bucket_tables(results: Sequence[SystemResult]) -> list[BucketTable]:
    """The groupings with more than one bucket, systems side by side; none of answers."""
    tables = []
    for name, grouping in GROUPINGS.items():
        by_system = [result.analysis.get("buckets", {}).get(name, {}) for result in results]
        buckets = sort_buckets({bucket for scores in by_system for bucket in scores})
        rows = [(bucket, tuple(_make_cell(scores.get(bucket)) for scores in by_system)) for bucket in buckets]
        if len(rows) > 1:
            tables.append(BucketTable(name, grouping.title, tuple(rows)))
    return tables


def _make_cell(scores: Mapping[str, Any] | None) -> BucketCell | None:
    return None if scores is None else BucketCell(scores["clips"], scores["chrf2"])


def sort_buckets(names: Iterable[str]) -> list[str]:
    """Buckets by their lower bound (`4-7` before `13-20`), recordings by their names."""

    def sort_key(name: str) -> tuple[int, str]:
        lower_bound = name.partition("-")[0].rstrip("+")
        return (int(lower_bound) if lower_bound.isdecimal() else 0), name

    return sorted(names, key=sort_key)


def _find_bucket_label(value: int, bounds: Sequence[int]) -> str:
    """The bucket of `value`: from one of the `bounds` to before the next. The first has all values below."""
    index = max((index for index, bound in enumerate(bounds) if value >= bound), default=0)
    if index == len(bounds) - 1:
        return f"{bounds[index]}+"
    last = bounds[index + 1] - 1
    return str(last) if last == bounds[index] else f"{bounds[index]}-{last}"


GROUPINGS = {
    "context_sentences": Grouping(
        "sentences of context",
        lambda row: (
            None if row.context_source == UNKNOWN else _find_bucket_label(len(row.context), (0, 1, 2, 3, 5, 9))
        ),
    ),
    "position": Grouping(
        "sentences before the clip", lambda row: _find_bucket_label(row.position, (0, 1, 2, 5, 10, 20, 50))
    ),
    "reference_words": Grouping(
        "words of the reference", lambda row: _find_bucket_label(len(words(row.reference)), (0, 4, 8, 13, 21, 31))
    ),
    "frames": Grouping(
        "frames shown",
        lambda row: None if row.frames is None else _find_bucket_label(row.frames, (0, 50, 100, 200, 400, 800)),
    ),
    "recording": Grouping("recording", lambda row: row.recording),
}
