"""Scores by kind of clip, the systems side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from signllava_cli.evaluation.behaviour import in_order
from signllava_cli.evaluation.score import Scored

TITLES = {
    "context_sentences": "sentences of context",
    "position": "sentences before the clip",
    "reference_words": "words of the reference",
    "frames": "frames shown",
    "recording": "recording",
}


@dataclass(frozen=True)
class Cell:
    """A system on the clips of a bucket: how many, and their chrF2."""

    clips: int
    chrf2: float


@dataclass(frozen=True)
class Kind:
    """`rows`: a bucket, and for each system its cell, or none where it has no clip there."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def kinds_of(scored: Sequence[Scored]) -> list[Kind]:
    """The kinds by which there is something to tell: more than one bucket. Only translations have any."""
    found = []
    for name, title in TITLES.items():
        by_system = [each.behaviour.get("by", {}).get(name, {}) for each in scored]
        buckets = in_order({bucket for buckets in by_system for bucket in buckets})
        rows = []
        for bucket in buckets:
            figures = [each.get(bucket) for each in by_system]
            rows.append((bucket, tuple(Cell(each["clips"], each["chrf2"]) if each else None for each in figures)))
        if len(rows) > 1:
            found.append(Kind(name, title, tuple(rows)))
    return found
