"""Scores by kind of clip, the systems side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from signllava_cli.evaluation.analysis import sort_buckets
from signllava_cli.evaluation.scoring import SystemResult

TITLES = {
    "context_sentences": "sentences of context",
    "position": "sentences before the clip",
    "reference_words": "words of the reference",
    "frames": "frames shown",
    "recording": "recording",
}


@dataclass(frozen=True)
class BucketCell:
    """A system on the clips of a bucket: how many, and their chrF2."""

    clips: int
    chrf2: float


@dataclass(frozen=True)
class BucketTable:
    """`rows`: a bucket, and for each system its cell, or none where it has no clip there."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[BucketCell | None, ...]], ...]


def bucket_tables(scored: Sequence[SystemResult]) -> list[BucketTable]:
    """The kinds by which there is something to tell: more than one bucket. Only translations have any."""
    found = []
    for name, title in TITLES.items():
        by_system = [each.analysis.get("by", {}).get(name, {}) for each in scored]
        buckets = sort_buckets({bucket for buckets in by_system for bucket in buckets})
        rows = []
        for bucket in buckets:
            figures = [each.get(bucket) for each in by_system]
            rows.append(
                (bucket, tuple(BucketCell(each["clips"], each["chrf2"]) if each else None for each in figures))
            )
        if len(rows) > 1:
            found.append(BucketTable(name, title, tuple(rows)))
    return found
