"""The metrics, as `evaluate.Metric` subclasses that need no hub and keep everything in memory.

Scores are in percent. Each result carries, beside its figures, a `signature` that says which variant it is. Every
metric is a function of sums of what it counts in each clip (`counts`), so that thousands of resamples cost a matrix
product (`scores`); the figures themselves are sacreBLEU's and rouge_score's.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER

from signllava_cli.evaluation.presets import Preset

TEXTS = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
ORDERS = (1, 2, 3, 4)
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


class TextMetric(OfflineMetric):
    """A metric of hypotheses against references: what it counts in each clip, and what the sums come to.

    `labels`: key of a figure -> its name in tables. `lower_is_better`: of error rates.
    """

    labels: ClassVar[dict[str, str]]
    lower_is_better: ClassVar[bool] = False

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__()
        self.preset = preset or Preset()

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Float64 (N, K): what is counted in each of N clips."""
        raise NotImplementedError

    def scores(self, sums: np.ndarray) -> Figures:
        """The figures (...) that sums (..., K) of counts come to, by key."""
        raise NotImplementedError

    @property
    def signature(self) -> str:
        """The variant, in the form of sacreBLEU's signatures."""
        raise NotImplementedError

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        sums = self.counts(predictions, references).sum(axis=0)
        return {**{key: float(value) for key, value in self.scores(sums).items()}, "signature": self.signature}


class Bleu(TextMetric):
    """Corpus BLEU-1 to BLEU-4 of sacreBLEU (Post 2018); BLEU-n is `BLEU(max_ngram_order=n)`, not a precision.

    sacreBLEU's signature does not encode the order, so the order stands in the name of the score.
    """

    labels: ClassVar = {f"bleu{order}": f"BLEU-{order}" for order in ORDERS}

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._metric = BLEU(tokenize=self.preset.tokenize, lowercase=self.preset.lowercase)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Lengths of hypothesis and reference, matching n-grams of each order, and all of them."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def scores(self, sums: np.ndarray) -> Figures:
        """BLEU with the `exp` smoothing of mteval-v13a: the k-th order without a match counts as 1/2^k matches."""
        length, reference = sums[..., 0], sums[..., 1]
        matches, totals = sums[..., 2:6], sums[..., 6:10]
        with np.errstate(divide="ignore", invalid="ignore"):
            penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
            halvings = np.cumsum((matches == 0) & (totals > 0), axis=-1)
            smoothed = np.where(matches > 0, matches, 0.5**halvings)
            logarithms = np.log(np.where(totals > 0, smoothed / totals, np.nan))
        figures = {}
        for order in ORDERS:
            mean = logarithms[..., :order].mean(axis=-1)
            score = 100 * penalty * np.exp(mean)
            some = (length > 0) & matches[..., :order].any(axis=-1)
            figures[f"bleu{order}"] = np.where(some & ~np.isnan(mean), score, 0.0)
        return figures

    @property
    def signature(self) -> str:
        """sacreBLEU's own."""
        return _signature(self._metric)


class Chrf(TextMetric):
    """Corpus chrF2 of sacreBLEU (Popović 2016): character 6-grams, no word n-grams, beta 2."""

    labels: ClassVar = {"chrf2": "chrF2"}
    word_order: ClassVar[int] = 0

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._metric = CHRF(word_order=self.word_order)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """For each order: n-grams of the hypothesis, of the reference, of both."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def scores(self, sums: np.ndarray) -> Figures:
        """F2 of the mean precision and the mean recall over the orders that both sides have."""
        counted = sums.reshape(*sums.shape[:-1], -1, 3)
        hypothesis, reference, both = np.moveaxis(counted, -1, 0)
        there = (hypothesis > 0) & (reference > 0)
        orders = np.maximum(there.sum(axis=-1), 1)
        precision = (np.where(there, both, 0) / np.where(there, hypothesis, 1)).sum(axis=-1) / orders
        recall = (np.where(there, both, 0) / np.where(there, reference, 1)).sum(axis=-1) / orders
        below = 4 * precision + recall
        score = 500 * precision * recall / np.where(below > 0, below, 1)
        return {key: np.where(below > 0, score, 0.0) for key in self.labels}

    @property
    def signature(self) -> str:
        """sacreBLEU's own."""
        return _signature(self._metric)


class ChrfPlusPlus(Chrf):
    """Corpus chrF++ of sacreBLEU (Popović 2017): chrF2 with word 1- and 2-grams."""

    labels: ClassVar = {"chrf++": "chrF++"}
    word_order: ClassVar[int] = 2


class Ter(TextMetric):
    """Translation edit rate of sacreBLEU (Snover et al. 2006): edits and shifts per word of the reference."""

    labels: ClassVar = {"ter": "TER"}
    lower_is_better: ClassVar = True

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._metric = TER(asian_support=self.preset.asian)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def scores(self, sums: np.ndarray) -> Figures:
        """Edits per word."""
        return {"ter": _rate(sums)}

    @property
    def signature(self) -> str:
        """sacreBLEU's own."""
        return _signature(self._metric)


class Wer(TextMetric):
    """Word error rate: the Levenshtein distance of the words, tokenised as for BLEU, per word of the reference."""

    labels: ClassVar = {"wer": "WER"}
    lower_is_better: ClassVar = True

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference."""
        words = self.preset.words
        said, meant = [list(map(words, texts)) for texts in (hypotheses, references)]
        pairs = zip(said, meant, strict=True)
        return np.array([[Levenshtein.distance(ours, theirs), len(theirs)] for ours, theirs in pairs], np.float64)

    def scores(self, sums: np.ndarray) -> Figures:
        """Edits per word."""
        return {"wer": _rate(sums)}

    @property
    def signature(self) -> str:
        """How words are told."""
        return f"wer|{self.preset.words_signature}|rapidfuzz:{version('rapidfuzz')}"


class RougeL(TextMetric):
    """Mean sentence ROUGE-L F1 of the package rouge_score (Lin 2004), without stemming.

    That package reads a-z and 0-9 alone; other presets than English read the words that BLEU reads.
    """

    labels: ClassVar = {"rougeL": "ROUGE-L"}

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=None if self.preset.english else self)

    def tokenize(self, text: str) -> list[str]:
        """What rouge_score calls for the words of a text."""
        return self.preset.words(text)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """F1, and one."""
        pairs = zip(hypotheses, references, strict=True)
        scored = (self._scorer.score(reference, hypothesis)["rougeL"].fmeasure for hypothesis, reference in pairs)
        return np.array([[each, 1.0] for each in scored])

    def scores(self, sums: np.ndarray) -> Figures:
        """The mean."""
        return {"rougeL": _rate(sums)}

    @property
    def signature(self) -> str:
        """The package's variant."""
        words = "rouge_score" if self.preset.english else self.preset.words_signature
        return f"rouge_score|rougeL|fmeasure|mean of sentences|words:{words}|stem:no|version:{version('rouge-score')}"


class ExactMatch(TextMetric):
    """Share of hypotheses that equal their reference, white space at the ends aside."""

    labels: ClassVar = {"exact_match": "exact %"}

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Whether it is equal, and one."""
        pairs = zip(hypotheses, references, strict=True)
        return np.array([[float(hypothesis.strip() == reference.strip()), 1.0] for hypothesis, reference in pairs])

    def scores(self, sums: np.ndarray) -> Figures:
        """The share."""
        return {"exact_match": _rate(sums)}

    @property
    def signature(self) -> str:
        """What is overlooked."""
        return "exact|case:yes|strip:yes"


class ReducedBleu(Bleu):
    """BLEU of what is left of both sides without punctuation and the words of a stop list (How2Sign's rBLEU).

    A pair of which one side is then empty does not count; how many do is a figure.

    Args:
        stop_words: case-folded.
        source: the name and hash of the stop list, for the signature.
    """

    labels: ClassVar = {"rbleu": "rBLEU", "rbleu_pairs": "rBLEU pairs"}

    def __init__(self, stop_words: frozenset[str], source: str, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self.stop_words, self.source = stop_words, source

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """As BLEU's, and whether the pair counts."""
        reduced = [list(map(self.reduced, texts)) for texts in (hypotheses, references)]
        both = np.array([bool(said and meant) for said, meant in zip(*reduced, strict=True)])
        return np.column_stack([super().counts(*reduced) * both[:, None], both])

    def scores(self, sums: np.ndarray) -> Figures:
        """BLEU-4, and the number of pairs."""
        return {"rbleu": super().scores(sums[..., :-1])["bleu4"], "rbleu_pairs": sums[..., -1]}

    def reduced(self, text: str) -> str:
        """`text` without punctuation and stop words."""
        words = re.sub(r"[^\w\s]", " ", text).split()
        return " ".join(word for word in words if word.casefold() not in self.stop_words)

    @property
    def signature(self) -> str:
        """BLEU's, and the stop list."""
        return f"{super().signature}|reduced|stop:{self.source}"


# what every evaluation of texts computes
TEXT_METRICS: tuple[type[TextMetric], ...] = (Bleu, Chrf, ChrfPlusPlus, Ter, RougeL, Wer, ExactMatch)


class ContextBoundAccuracy(OfflineMetric):
    """Share of context-bound clips whose hypothesis holds the reading that the context gives, and no other.

    `references` are the readings and `others` the readings of other contexts; words are compared whole and
    case-folded.
    """

    signature: ClassVar[str] = "reading:present|others:absent|match:word|case:no"
    features = datasets.Features(
        {
            "predictions": datasets.Value("string"),
            "references": datasets.Value("string"),
            "others": datasets.Sequence(datasets.Value("string")),
        }
    )

    def _compute(self, predictions: list[str], references: list[str], others: list[list[str]]) -> dict[str, Any]:
        right = sum(
            is_read_right(hypothesis, reading, wrong)
            for hypothesis, reading, wrong in zip(predictions, references, others, strict=True)
        )
        return {"context_bound_accuracy": 100 * right / len(predictions), "signature": self.signature}


def is_read_right(hypothesis: str, reading: str, others: Sequence[str]) -> bool:
    """Whether `reading` is a word of the hypothesis and none of `others` is."""
    words = set(re.findall(r"\w+", hypothesis.casefold()))
    return reading.casefold() in words and not words & {other.casefold() for other in others}


def _rate(sums: np.ndarray) -> np.ndarray:
    """100 times the first count a second; where there is no second, 100 if there is a first (as sacreBLEU's TER)."""
    first, second = sums[..., 0], sums[..., 1]
    return np.where(second > 0, 100 * first / np.where(second > 0, second, 1), np.where(first > 0, 100.0, 0.0))


def _signature(metric: Any) -> str:
    metric.num_refs = 1  # which sacreBLEU learns with the first score
    return str(metric.get_signature())
