"""The metrics of `signllava eval`: the one list from which options, tables, charts and the model card are derived."""

from dataclasses import dataclass
from typing import Literal

from signllava_cli.evaluation.metrics.base import Metric
from signllava_cli.evaluation.metrics.bleurt import Bleurt
from signllava_cli.evaluation.metrics.comet import Comet
from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy
from signllava_cli.evaluation.metrics.meteor import Meteor
from signllava_cli.evaluation.metrics.text_metrics import (
    Bleu,
    Chrf,
    ChrfPlusPlus,
    ExactMatch,
    ReducedBleu,
    RougeL,
    RougeLMscoco,
    RougeLSeq2seq,
    Ter,
    Wer,
)
from signllava_cli.evaluation.metrics.yes_no import YesNo


@dataclass(frozen=True)
class MetricEntry:
    """What `signllava eval` must know of a metric.

    `metric`: its class. It is constructed with a `Preset`, or, if it has an `option`, with a path and a `Preset`.
    `input_kind`: what it scores: translations, yes/no answers, or translations of clips with context-bound marks.
    `option`: the option of `signllava eval` with the path of the local data that the metric needs. Without the option
    it is not computed; metrics that need no data are always computed. `in_tables`: whether tables show its scores;
    other scores are in scores.json and under "More scores" of the page.
    """

    metric: type[Metric]
    input_kind: Literal["translations", "answers", "marks"] = "translations"
    option: str | None = None
    in_tables: bool = True


METRICS = {
    "bleu": MetricEntry(Bleu),
    "chrf": MetricEntry(Chrf),
    "chrf++": MetricEntry(ChrfPlusPlus, in_tables=False),
    "ter": MetricEntry(Ter, in_tables=False),
    "rougeL": MetricEntry(RougeL),
    "rougeL_mscoco": MetricEntry(RougeLMscoco),
    "rougeL_seq2seq": MetricEntry(RougeLSeq2seq),
    "wer": MetricEntry(Wer, in_tables=False),
    "meteor": MetricEntry(Meteor, option="--meteor"),
    "rbleu": MetricEntry(ReducedBleu, option="--stop-list"),
    "bleurt": MetricEntry(Bleurt, option="--bleurt"),
    "comet": MetricEntry(Comet, option="--comet"),
    "exact_match": MetricEntry(ExactMatch),
    "context_bound": MetricEntry(ContextBoundAccuracy, input_kind="marks"),
    "yes_no": MetricEntry(YesNo, input_kind="answers"),
}
LABELS = {key: label for entry in METRICS.values() for key, label in entry.metric.labels.items()}
COUNT_KEYS = frozenset(key for entry in METRICS.values() for key in entry.metric.count_keys)
ROUGE_KEYS = frozenset(
    key for entry in METRICS.values() if issubclass(entry.metric, RougeL) for key in entry.metric.labels
)
# the keys of the scores that tables show, in the order of their columns; of ROUGE-L only the one of the preset
TABLE_KEYS = tuple(
    key
    for entry in METRICS.values()
    if entry.in_tables
    for key in entry.metric.labels
    if key not in entry.metric.count_keys or entry.input_kind == "answers"
)


def format_score(key: str, value: float) -> str:
    """A value for tables: a score with two decimals, a count with none."""
    return f"{value:.0f}" if key in COUNT_KEYS else f"{value:.2f}"
