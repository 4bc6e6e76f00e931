"""The base classes of all metrics: statistics per clip, and scores from their sums, as in sacreBLEU.

Statistics are extracted once per clip. The scores of a thousand resamples then cost one matrix product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from signllava_cli.evaluation.metrics.presets import Preset

Scores = dict[str, np.ndarray]


class Metric:
    """A metric whose scores are a function of summed statistics, so that it can be resampled.

    `labels`: key of a score -> its name in tables. `count_keys`: keys that are counts (of items, of pairs), not
    scores. `lower_is_better`: true for error rates. `columns`: the arguments of `compute`, each with the type of its
    entries; a list around the type where an entry is a list.
    """

    labels: ClassVar[dict[str, str]]
    count_keys: ClassVar[frozenset[str]] = frozenset()
    lower_is_better: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, Any]] = {"predictions": "string", "references": "string"}

    def compute(self, *, predictions: Sequence[str], references: Sequence[str], **kwargs: Any) -> dict[str, Any]:
        """The scores of `predictions` against `references`, and the `signature`.

        Raises:
            ValueError: the numbers of predictions and references differ.
        """
        raise NotImplementedError

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """Scores by key, each (...), from summed statistics (..., K); NaN where nothing was counted."""
        raise NotImplementedError

    @property
    def signature(self) -> str:
        """The variant of the metric, in the form of sacreBLEU's signatures."""
        raise NotImplementedError

    def _make_result(self, statistics: np.ndarray) -> dict[str, Any]:
        """What `compute` returns, from statistics (N, K)."""
        scores = self.compute_scores(statistics.sum(axis=0))
        return {**{key: float(value) for key, value in scores.items()}, "signature": self.signature}


class TextMetric(Metric):
    """A metric of hypotheses against references.

    Args:
        preset: how texts are split into words.
    """

    def __init__(self, preset: Preset | None = None) -> None:
        self.preset = preset or Preset()

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The statistics of N clips: float64 (N, K)."""
        raise NotImplementedError

    def compute(self, *, predictions: Sequence[str], references: Sequence[str], **kwargs: Any) -> dict[str, Any]:
        """The scores, and the signature."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} hypotheses, {len(references)} references: give one for each.")
        return self._make_result(self.extract_statistics(predictions, references))


class SentenceMeanMetric(TextMetric):
    """A metric with one score: the mean, in percent, of sentence scores."""

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The score of each clip: float64 (N,); for most metrics between 0 and 1."""
        raise NotImplementedError

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The sentence score, and 1: float64 (N, 2)."""
        return np.column_stack([self.score_sentences(hypotheses, references), np.ones(len(hypotheses))])

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """The mean."""
        (key,) = self.labels
        return {key: 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)}


@dataclass(frozen=True)
class MetricStatistics:
    """A metric, and its statistics of the clips of one system: float64 (N, K)."""

    metric: Metric
    values: np.ndarray

    def compute_scores(self, indices: Sequence[int] | None = None) -> dict[str, float]:
        """The scores of the clips with these indices; of all clips by default."""
        values = self.values if indices is None else self.values[list(indices)]
        return {key: float(score) for key, score in self.metric.compute_scores(values.sum(axis=0)).items()}
