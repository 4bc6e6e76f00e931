"""Accuracy on context-bound clips: only the context decides which of several words such a clip means."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from signllava_cli.data.annotations import ContextBound
from signllava_cli.evaluation.metrics.base import Metric, Scores


class ContextBoundAccuracy(Metric):
    """Share of context-bound clips whose hypothesis has the reading of this context, and no other reading.

    For `compute`, `references` are the readings and `others` the readings of other contexts. Whole words are
    compared, case-folded.
    """

    labels: ClassVar = {"context_bound_accuracy": "context-bound %"}
    columns: ClassVar = {"predictions": "string", "references": "string", "others": ["string"]}

    def extract_statistics(self, hypotheses: Sequence[str], marks: Sequence[ContextBound | None]) -> np.ndarray:
        """Whether the reading is correct, and whether the clip is context-bound: float64 (N, 2)."""
        statistics = np.zeros((len(hypotheses), 2))
        for row, hypothesis, mark in zip(statistics, hypotheses, marks, strict=True):
            if mark is not None:
                row[:] = is_correct_reading(hypothesis, mark.reading, mark.others), 1
        return statistics

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """The share; NaN in a resample without context-bound clips."""
        correct, total = sums[..., 0], sums[..., 1]
        return {"context_bound_accuracy": np.where(total > 0, 100 * correct / np.where(total > 0, total, 1), np.nan)}

    @property
    def signature(self) -> str:
        """How readings are compared."""
        return "reading:present|others:absent|match:word|case:no"

    def compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[str],
        others: Sequence[Sequence[str]] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The share, and the signature."""
        marks = [ContextBound("", reading, tuple(words)) for reading, words in zip(references, others, strict=True)]
        return self._make_result(self.extract_statistics(predictions, marks))


def is_correct_reading(hypothesis: str, reading: str, others: Sequence[str]) -> bool:
    """Whether `reading` is a word of the hypothesis and none of `others` is."""
    words = set(re.findall(r"\w+", hypothesis.casefold()))
    return reading.casefold() in words and not words & {other.casefold() for other in others}
