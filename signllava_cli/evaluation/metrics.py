"""The metrics, as `evaluate.Metric` subclasses that need no hub and keep everything in memory.

All scores are in percent. Each result carries, beside its figures, a `signature` that says which variant it is.
"""

import re
from importlib.metadata import version
from typing import Any

import evaluate
from datasets import Features, Sequence, Value

TEXTS = Features({"predictions": Value("string"), "references": Value("string")})


class OfflineMetric(evaluate.Metric):
    """A metric of this package: one process, in memory, nothing fetched."""

    features = TEXTS

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", inputs_description="", features=self.features
        )


class Bleu(OfflineMetric):
    """Corpus BLEU-1 to BLEU-4 of sacreBLEU (Post 2018), cased, 13a; BLEU-n is `BLEU(max_ngram_order=n)`.

    sacreBLEU's signature does not encode the order, so the order stands in the name of the score.
    """

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from sacrebleu.metrics import BLEU

        figures: dict[str, Any] = {}
        for order in (1, 2, 3, 4):
            metric = BLEU(max_ngram_order=order)
            figures[f"bleu{order}"] = metric.corpus_score(predictions, [references]).score
        return {**figures, "signature": str(metric.get_signature())}


class Chrf(OfflineMetric):
    """Corpus chrF2 of sacreBLEU (Popović 2016): character 6-grams, no word n-grams, beta 2."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from sacrebleu.metrics import CHRF

        metric = CHRF()
        score = metric.corpus_score(predictions, [references]).score
        return {"chrf2": score, "signature": str(metric.get_signature())}


class RougeL(OfflineMetric):
    """Mean sentence ROUGE-L F1 of the package rouge_score (Lin 2004), without stemming."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"], use_stemmer=False)
        scores = [
            scorer.score(reference, hypothesis)["rougeL"].fmeasure
            for reference, hypothesis in zip(references, predictions, strict=True)
        ]
        signature = f"rouge_score|rougeL|fmeasure|stem:no|version:{version('rouge-score')}"
        return {"rougeL": 100 * sum(scores) / len(scores), "signature": signature}


class ExactMatch(OfflineMetric):
    """Share of hypotheses that equal their reference, white space at the ends aside."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        equal = sum(hypothesis.strip() == reference.strip() for hypothesis, reference in pairs)
        return {"exact_match": 100 * equal / len(predictions), "signature": "exact|case:yes|strip:yes"}


class ContextBoundAccuracy(OfflineMetric):
    """Share of context-bound clips whose hypothesis holds the reading that the context gives, and no other.

    `references` are the readings and `others` the readings of other contexts; words are compared whole and
    case-folded.
    """

    features = Features(
        {"predictions": Value("string"), "references": Value("string"), "others": Sequence(Value("string"))}
    )

    def _compute(self, predictions: list[str], references: list[str], others: list[list[str]]) -> dict[str, Any]:
        right = sum(
            is_read_right(hypothesis, reading, wrong)
            for hypothesis, reading, wrong in zip(predictions, references, others, strict=True)
        )
        signature = "reading:present|others:absent|match:word|case:no"
        return {"context_bound_accuracy": 100 * right / len(predictions), "signature": signature}


def is_read_right(hypothesis: str, reading: str, others: list[str]) -> bool:
    """Whether `reading` is a word of the hypothesis and none of `others` is."""
    words = set(re.findall(r"\w+", hypothesis.casefold()))
    return reading.casefold() in words and not words & {other.casefold() for other in others}
