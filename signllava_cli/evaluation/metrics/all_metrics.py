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

    `metric`: its class, made of a `Preset`; with an `option`, of the path that the option names, and a `Preset`.
    `scores`: the kind of hypotheses that it scores; `marks` are the corpus's marks of context-bound clips. `option`:
    the option of `signllava eval` that names the local data which the metric needs. It is computed where the option
    is given; metrics without an option are always computed. `in_tables`: whether tables show its scores; the other
    scores are in scores.json and under "More scores" of the page.
    """

    metric: type[Metric]
    scores: Literal["translations", "answers", "marks"] = "translations"
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
    "context_bound": MetricEntry(ContextBoundAccuracy, scores="marks"),
    "yes_no": MetricEntry(YesNo, scores="answers"),
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
    if key not in entry.metric.count_keys or entry.scores == "answers"
)


def format_score(key: str, value: float) -> str:
    """A value for tables: a score with two decimals, a count with none."""
    return f"{value:.0f}" if key in COUNT_KEYS else f"{value:.2f}"
