"""What a metric is: a function of sums of what it counts in each clip, and on request an `evaluate.Metric`.

Counting once and summing often makes thousands of resamples cost a matrix product. The package evaluate imports the
pipelines of transformers, seconds of them, so only `CountedMetric.as_evaluate_metric` imports it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from signllava_cli.evaluation.metrics.presets import Preset

if TYPE_CHECKING:
    from signllava_cli.evaluation.metrics.evaluate_metric import EvaluateMetric

Scores = dict[str, np.ndarray]


class CountedMetric:
    """A metric that is a function of sums of what it counts in each clip, so that it can be resampled.

    `labels`: key of a figure -> its name in tables. `numbers`: keys of those that only say how much was counted.
    `lower_is_better`: of error rates. `columns`: what `compute` takes, each with the type of its entries, a list
    around it where an entry is a list.
    """

    labels: ClassVar[dict[str, str]]
    numbers: ClassVar[frozenset[str]] = frozenset()
    lower_is_better: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, Any]] = {"predictions": "string", "references": "string"}

    def compute(self, *, predictions: Sequence[str], references: Sequence[str], **others: Any) -> dict[str, Any]:
        """The figures of `predictions` against `references`, and the signature.

        Raises:
            ValueError: they are not equally many.
        """
        raise NotImplementedError

    def as_evaluate_metric(self) -> "EvaluateMetric":
        """This metric as an `evaluate.Metric`, for `evaluate.combine`, trainers, and the like."""
        from signllava_cli.evaluation.metrics.evaluate_metric import EvaluateMetric

        return EvaluateMetric(self)

    def scores(self, sums: np.ndarray) -> Scores:
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
        self.preset = preset or Preset()

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Float64 (N, K): what is counted in each of N clips."""
        raise NotImplementedError

    def compute(self, *, predictions: Sequence[str], references: Sequence[str], **others: Any) -> dict[str, Any]:
        """The figures, and the signature."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} hypotheses, {len(references)} references: give one for each.")
        return self.result(self.counts(predictions, references))


class SentenceMean(TextMetric):
    """A metric that is the mean, in percent, of what each clip scores by itself; it has one figure."""

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Float64 (N,): the score of each clip; 1 is the best that most can reach."""
        raise NotImplementedError

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The score, and one."""
        return np.column_stack([self.of_clips(hypotheses, references), np.ones(len(hypotheses))])

    def scores(self, sums: np.ndarray) -> Scores:
        """The mean."""
        (key,) = self.labels
        return {key: 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)}
