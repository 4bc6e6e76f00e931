"""Accuracy on context-bound clips: words of which only the context says which of several they are."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from signllava_cli.data.annotations import ContextBound
from signllava_cli.evaluation.metrics.base import CountedMetric, Scores


class ContextBoundAccuracy(CountedMetric):
    """Share of context-bound clips whose hypothesis holds the reading that the context gives, and no other.

    For `compute`, `references` are the readings and `others` the readings of other contexts; words are compared whole
    and case-folded.
    """

    labels: ClassVar = {"context_bound_accuracy": "context-bound %"}
    columns: ClassVar = {"predictions": "string", "references": "string", "others": ["string"]}

    def counts(self, hypotheses: Sequence[str], marks: Sequence[ContextBound | None]) -> np.ndarray:
        """Float64 (N, 2): whether it is read right, and whether the clip is context-bound."""
        counted = np.zeros((len(hypotheses), 2))
        for row, hypothesis, mark in zip(counted, hypotheses, marks, strict=True):
            if mark is not None:
                row[:] = is_read_right(hypothesis, mark.reading, mark.others), 1
        return counted

    def scores(self, sums: np.ndarray) -> Scores:
        """The share; NaN in a resample without such a clip."""
        right, bound = sums[..., 0], sums[..., 1]
        return {"context_bound_accuracy": np.where(bound > 0, 100 * right / np.where(bound > 0, bound, 1), np.nan)}

    @property
    def signature(self) -> str:
        """What counts."""
        return "reading:present|others:absent|match:word|case:no"

    def compute(
        self, *, predictions: Sequence[str], references: Sequence[str], others: Sequence[Sequence[str]] = (), **_: Any
    ) -> dict[str, Any]:
        """The share, and the signature."""
        pairs = zip(references, others, strict=True)
        return self.result(self.counts(predictions, [ContextBound("", read, tuple(wrong)) for read, wrong in pairs]))


def is_read_right(hypothesis: str, reading: str, others: Sequence[str]) -> bool:
    """Whether `reading` is a word of the hypothesis and none of `others` is."""
    words = set(re.findall(r"\w+", hypothesis.casefold()))
    return reading.casefold() in words and not words & {other.casefold() for other in others}
