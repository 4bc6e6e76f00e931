"""A metric of this package as an `evaluate.Metric`: one process, in memory, no download.

The package evaluate imports the pipelines of transformers, which takes seconds, so only this module imports it.
"""

from typing import Any

import datasets
import evaluate

from signllava_cli.evaluation.metrics.base import Metric


class EvaluateMetric(evaluate.Metric):
    """`metric` with the methods of `evaluate.Metric` (`compute`, `add`, `add_batch`), for `evaluate.combine` or a
    trainer."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: _make_feature(dtype) for name, dtype in self.metric.columns.items()})
        return evaluate.MetricInfo(
            description=type(self.metric).__doc__ or "", citation="", inputs_description="", features=features
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return self.metric.compute(**columns)


def _make_feature(dtype: str | list[str]) -> Any:
    return datasets.Value(dtype) if isinstance(dtype, str) else datasets.Sequence(datasets.Value(dtype[0]))
