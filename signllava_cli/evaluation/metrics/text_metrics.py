"""The metrics of texts that need no model: the figures are sacreBLEU's and rouge_score's, in percent.

Each result carries, beside its figures, a `signature` that says which variant it is.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU, CHRF, TER

from signllava_cli.evaluation.metrics.base import Scores, SentenceMean, TextMetric
from signllava_cli.evaluation.metrics.presets import Preset
from signllava_cli.evaluation.metrics.ter import count_edits

ORDERS = (1, 2, 3, 4)
MSCOCO_BETA = 1.2  # weight of recall in the ROUGE-L of the caption evaluation of MS COCO


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

    def scores(self, sums: np.ndarray) -> Scores:
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
        self._metric = CHRF(word_order=self.word_order, lowercase=self.preset.lowercase)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """For each order: n-grams of the hypothesis, of the reference, of both."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def scores(self, sums: np.ndarray) -> Scores:
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

    @staticmethod
    def of_plus_plus(counts: np.ndarray) -> np.ndarray:
        """What chrF2 counts, of the counts (N, K) of chrF++, which begin with the same character n-grams."""
        return counts[:, : 3 * CHRF.CHAR_ORDER]

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
        # sacreBLEU splits Asian characters only where it normalizes
        self._metric = TER(asian_support=self.preset.asian, normalized=self.preset.asian)

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference."""
        said, meant = (map(self.words, texts) for texts in (hypotheses, references))
        pairs = zip(said, meant, strict=True)
        return np.array([[count_edits(ours, theirs), len(theirs)] for ours, theirs in pairs], np.float64)

    def words(self, text: str) -> list[str]:
        """The words of `text`, as sacreBLEU's TER reads them."""
        return str(self._metric._preprocess_segment(text)).split()

    def scores(self, sums: np.ndarray) -> Scores:
        """Edits per word."""
        return {"ter": _rate(sums)}

    @property
    def signature(self) -> str:
        """sacreBLEU's own."""
        return _signature(self._metric)


class Wer(TextMetric):
    """Word error rate: the Levenshtein distance of the words, tokenized as for BLEU, per word of the reference."""

    labels: ClassVar = {"wer": "WER"}
    lower_is_better: ClassVar = True

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference."""
        words = self.preset.words
        said, meant = [list(map(words, texts)) for texts in (hypotheses, references)]
        pairs = zip(said, meant, strict=True)
        return np.array([[Levenshtein.distance(ours, theirs), len(theirs)] for ours, theirs in pairs], np.float64)

    def scores(self, sums: np.ndarray) -> Scores:
        """Edits per word."""
        return {"wer": _rate(sums)}

    @property
    def signature(self) -> str:
        """How words are told."""
        return f"wer|{self.preset.words_signature}|rapidfuzz:{version('rapidfuzz')}"


class RougeL(SentenceMean):
    """Mean sentence ROUGE-L of the words that both sides have in order: how precision and recall make an F, and what
    a word is, differs between programs, of which this is the package rouge_score (Lin 2004): F1, without stemming.

    That package reads a-z and 0-9 alone; other presets than English read the words that BLEU reads.
    """

    labels: ClassVar = {"rougeL": "ROUGE-L"}

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """F over the longest common subsequence of the words."""
        scored = np.zeros(len(hypotheses))
        for index, (said, meant) in enumerate(zip(hypotheses, references, strict=True)):
            ours, theirs = self.words(said), self.words(meant)
            if common := LCSseq.similarity(ours, theirs):
                scored[index] = self.f_score(common / len(ours), common / len(theirs))
        return scored

    def words(self, text: str) -> list[str]:
        """The words of `text`."""
        return tokenize(text, None) if self.preset.english else self.preset.words(text)

    def f_score(self, precision: float, recall: float) -> float:
        """F1; neither is 0."""
        return 2 * precision * recall / (precision + recall)

    @property
    def signature(self) -> str:
        """The variant."""
        words = "rouge_score" if self.preset.english else self.preset.words_signature
        return f"rouge_score|rougeL|fmeasure|mean of sentences|words:{words}|stem:no|version:{version('rouge-score')}"


class RougeLMscoco(RougeL):
    """Mean sentence ROUGE-L of MS COCO's caption evaluation (Chen et al. 2015), which weighs recall more.

    It is that of neccam/slt (Sign Language Transformers) and of what was built on it. It reads words between spaces;
    characters, where a preset's words are those.
    """

    labels: ClassVar = {"rougeL_mscoco": "ROUGE-L (mscoco)"}
    variant: ClassVar[str] = f"mscoco|rougeL|beta:{MSCOCO_BETA}"

    def words(self, text: str) -> list[str]:
        """The words of `text`."""
        words = self.preset.cased(text).split()
        return list("".join(words)) if self.preset.asian else words

    def f_score(self, precision: float, recall: float) -> float:
        """F of beta 1.2."""
        return (1 + MSCOCO_BETA**2) * precision * recall / (recall + MSCOCO_BETA**2 * precision)

    @property
    def signature(self) -> str:
        """The variant."""
        words = "characters" if self.preset.asian else "spaces"
        return (
            f"{self.variant}|mean of sentences|case:{self.preset.case}|tok:{words}|rapidfuzz:{version('rapidfuzz')}"
        )


class RougeLSeq2seq(RougeLMscoco):
    """Mean sentence ROUGE-L of google/seq2seq's metrics/rouge.py, whose beta is precision over recall.

    So it lies near the smaller of both. It is that of FangyunWei/SLRT (TwoStreamNetwork: TwoStream-SLT and its
    single-stream baseline), with the words of `RougeLMscoco`.
    """

    labels: ClassVar = {"rougeL_seq2seq": "ROUGE-L (seq2seq)"}
    variant: ClassVar[str] = "seq2seq|rougeL|beta:precision/recall"

    def f_score(self, precision: float, recall: float) -> float:
        """F of beta = precision / recall."""
        beta = precision / recall
        return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


class ExactMatch(SentenceMean):
    """Share of hypotheses that equal their reference, white space at the ends aside; in Asian scripts all of it."""

    labels: ClassVar = {"exact_match": "exact %"}

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Whether it is equal."""
        pairs = zip(map(self._compared, hypotheses), map(self._compared, references), strict=True)
        return np.array([float(said == meant) for said, meant in pairs])

    def _compared(self, text: str) -> str:
        cased = self.preset.cased(text)
        return "".join(cased.split()) if self.preset.asian else cased.strip()

    @property
    def signature(self) -> str:
        """What is overlooked."""
        return f"exact|case:{self.preset.case}|space:{'no' if self.preset.asian else 'inside'}"


class ReducedBleu(Bleu):
    """BLEU of what is left of both sides without punctuation and the words of a stop list (How2Sign's rBLEU).

    A pair of which one side is then empty does not count; how many do is a figure.

    Args:
        stop_words: case-folded.
        source: the name and hash of the stop list, for the signature.
    """

    labels: ClassVar = {"rbleu": "rBLEU", "rbleu_pairs": "rBLEU pairs"}
    numbers: ClassVar = frozenset({"rbleu_pairs"})

    def __init__(self, stop_words: frozenset[str], source: str, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self.stop_words, self.source = stop_words, source

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """As BLEU's, and whether the pair counts."""
        reduced = [list(map(self.reduced, texts)) for texts in (hypotheses, references)]
        both = np.array([bool(said and meant) for said, meant in zip(*reduced, strict=True)])
        return np.column_stack([super().counts(*reduced) * both[:, None], both])

    def scores(self, sums: np.ndarray) -> Scores:
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
TEXT_METRICS: tuple[type[TextMetric], ...] = (
    Bleu,
    Chrf,
    ChrfPlusPlus,
    Ter,
    RougeL,
    RougeLMscoco,
    RougeLSeq2seq,
    Wer,
    ExactMatch,
)


def _rate(sums: np.ndarray) -> np.ndarray:
    """100 times the first count a second; where there is no second, 100 if there is a first (as sacreBLEU's TER)."""
    first, second = sums[..., 0], sums[..., 1]
    return np.where(second > 0, 100 * first / np.where(second > 0, second, 1), np.where(first > 0, 100.0, 0.0))


def _signature(metric: Any) -> str:
    metric.num_refs = 1  # which sacreBLEU learns with the first score
    return str(metric.get_signature())
