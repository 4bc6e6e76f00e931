"""A metric of this package as an `evaluate.Metric`: one process, in memory, nothing fetched."""

from typing import TYPE_CHECKING, Any

import datasets
import evaluate

if TYPE_CHECKING:
    from signllava_cli.evaluation.metrics.base import CountedMetric


class EvaluateMetric(evaluate.Metric):
    """`metric` behind the methods of `evaluate.Metric`: `compute`, `add`, `add_batch`."""

    def __init__(self, metric: "CountedMetric") -> None:
        self.metric = metric
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({name: _feature(kind) for name, kind in self.metric.columns.items()})
        return evaluate.MetricInfo(
            description=type(self.metric).__doc__ or "", citation="", inputs_description="", features=features
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return self.metric.compute(**columns)


def _feature(kind: str | list[str]) -> Any:
    return datasets.Value(kind) if isinstance(kind, str) else datasets.Sequence(datasets.Value(kind[0]))
