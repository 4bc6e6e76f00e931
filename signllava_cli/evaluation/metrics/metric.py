"""What a metric is: an `evaluate.Metric` that needs no hub, and a function of sums of what it counts in each clip.

Counting once and summing often makes thousands of resamples cost a matrix product.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from signllava_cli.evaluation.metrics.presets import Preset

TEXTS = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
Figures = dict[str, np.ndarray]


class OfflineMetric(evaluate.Metric):
    """A metric of this package: one process, in memory, nothing fetched."""

    features = TEXTS

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", inputs_description="", features=self.features
        )


class CountedMetric(OfflineMetric):
    """A metric that is a function of sums of what it counts in each clip, so that it can be resampled.

    `labels`: key of a figure -> its name in tables. `numbers`: keys of those that only say how much was counted.
    `lower_is_better`: of error rates.
    """

    labels: ClassVar[dict[str, str]]
    numbers: ClassVar[frozenset[str]] = frozenset()
    lower_is_better: ClassVar[bool] = False

    def scores(self, sums: np.ndarray) -> Figures:
        """The figures (...) that sums (..., K) of counts come to, by key; NaN where nothing was counted."""
        raise NotImplementedError

    @property
    def signature(self) -> str:
        """The variant, in the form of sacreBLEU's signatures."""
        raise NotImplementedError

    def result(self, counts: np.ndarray) -> dict[str, Any]:
        """What `compute` returns, of counts (N, K): the figures, and the signature."""
        figures = self.scores(counts.sum(axis=0))
        return {**{key: float(value) for key, value in figures.items()}, "signature": self.signature}


class TextMetric(CountedMetric):
    """A metric of hypotheses against references."""

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__()
        self.preset = preset or Preset()

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Float64 (N, K): what is counted in each of N clips."""
        raise NotImplementedError

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return self.result(self.counts(predictions, references))


class SentenceMean(TextMetric):
    """A metric that is the mean, in percent, of what each clip scores by itself; it has one figure."""

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Float64 (N,): the score of each clip; 1 is the best that most can reach."""
        raise NotImplementedError

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The score, and one."""
        return np.column_stack([self.of_clips(hypotheses, references), np.ones(len(hypotheses))])

    def scores(self, sums: np.ndarray) -> Figures:
        """The mean."""
        (key,) = self.labels
        return {key: 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)}
