"""The metrics of texts that need no model and no data: those of sacreBLEU, ROUGE-L, word error rate, exact match.

Scores are in percent. Each metric has a `signature` of its variant.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU, CHRF, TER

from signllava_cli.evaluation.metrics.base import Scores, SentenceMeanMetric, TextMetric
from signllava_cli.evaluation.metrics.presets import Preset, read_stop_list
from signllava_cli.evaluation.metrics.ter import count_edits

ORDERS = (1, 2, 3, 4)
MSCOCO_BETA = 1.2  # weight of recall in the ROUGE-L of the caption evaluation of MS COCO


class Bleu(TextMetric):
    """Corpus BLEU-1 to BLEU-4 of sacreBLEU (Post 2018). BLEU-n is `BLEU(max_ngram_order=n)`, not an n-gram precision.

    sacreBLEU's signature does not have the order, so the key of each score has it.
    """

    labels: ClassVar = {f"bleu{order}": f"BLEU-{order}" for order in ORDERS}

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._metric = BLEU(tokenize=self.preset.tokenize, lowercase=self.preset.lowercase)

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Length of hypothesis and reference, matching n-grams by order, all n-grams by order: float64 (N, 10)."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """BLEU with the `exp` smoothing of mteval-v13a: the k-th order without a match counts as 1/2^k matches."""
        length, reference_length = sums[..., 0], sums[..., 1]
        matches, totals = sums[..., 2:6], sums[..., 6:10]  # (..., 4)
        with np.errstate(divide="ignore", invalid="ignore"):
            penalty = np.where(length < reference_length, np.exp(1 - reference_length / length), 1.0)
            halvings = np.cumsum((matches == 0) & (totals > 0), axis=-1)
            smoothed = np.where(matches > 0, matches, 0.5**halvings)
            log_precisions = np.log(np.where(totals > 0, smoothed / totals, np.nan))
        scores = {}
        for order in ORDERS:
            mean = log_precisions[..., :order].mean(axis=-1)
            score = 100 * penalty * np.exp(mean)
            has_matches = (length > 0) & matches[..., :order].any(axis=-1)
            scores[f"bleu{order}"] = np.where(has_matches & ~np.isnan(mean), score, 0.0)
        return scores

    @property
    def signature(self) -> str:
        """sacreBLEU's signature."""
        return _make_sacrebleu_signature(self._metric)


class Chrf(TextMetric):
    """Corpus chrF2 of sacreBLEU (Popović 2016): character 6-grams, no word n-grams, beta 2."""

    labels: ClassVar = {"chrf2": "chrF2"}
    word_order: ClassVar[int] = 0

    def __init__(self, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._metric = CHRF(word_order=self.word_order, lowercase=self.preset.lowercase)

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """For each order, the n-grams of the hypothesis, of the reference, and of both: float64 (N, 3 * orders)."""
        return np.array(self._metric._extract_corpus_statistics(hypotheses, [list(references)]), np.float64)

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """F2 of the mean precision and the mean recall over the orders that both sides have."""
        by_order = sums.reshape(*sums.shape[:-1], -1, 3)  # (..., orders, 3)
        hypothesis, reference, matches = np.moveaxis(by_order, -1, 0)
        is_counted = (hypothesis > 0) & (reference > 0)
        num_orders = np.maximum(is_counted.sum(axis=-1), 1)
        precision = (np.where(is_counted, matches, 0) / np.where(is_counted, hypothesis, 1)).sum(axis=-1) / num_orders
        recall = (np.where(is_counted, matches, 0) / np.where(is_counted, reference, 1)).sum(axis=-1) / num_orders
        denominator = 4 * precision + recall
        score = 500 * precision * recall / np.where(denominator > 0, denominator, 1)
        return {key: np.where(denominator > 0, score, 0.0) for key in self.labels}

    @staticmethod
    def select_statistics(chrf_plus_plus: np.ndarray) -> np.ndarray:
        """The statistics of chrF2 in those of chrF++ (N, K), whose first columns are the same character n-grams."""
        return chrf_plus_plus[:, : 3 * CHRF.CHAR_ORDER]

    @property
    def signature(self) -> str:
        """sacreBLEU's signature."""
        return _make_sacrebleu_signature(self._metric)


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
        splits_characters = self.preset.has_character_words
        self._metric = TER(asian_support=splits_characters, normalized=splits_characters)

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference: float64 (N, 2)."""
        pairs = zip(map(self.split_words, hypotheses), map(self.split_words, references), strict=True)
        return np.array([[count_edits(*pair), len(pair[1])] for pair in pairs], np.float64)

    def split_words(self, text: str) -> list[str]:
        """The words of `text`, as in sacreBLEU's TER."""
        return str(self._metric._preprocess_segment(text)).split()

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """Edits per word."""
        return {"ter": _compute_error_rate(sums)}

    @property
    def signature(self) -> str:
        """sacreBLEU's signature."""
        return _make_sacrebleu_signature(self._metric)


class Wer(TextMetric):
    """Word error rate: Levenshtein distance of the words, tokenized as for BLEU, per word of the reference."""

    labels: ClassVar = {"wer": "WER"}
    lower_is_better: ClassVar = True

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Edits, and words of the reference: float64 (N, 2)."""
        split_words = self.preset.split_words
        pairs = zip(map(split_words, hypotheses), map(split_words, references), strict=True)
        return np.array([[Levenshtein.distance(*pair), len(pair[1])] for pair in pairs], np.float64)

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """Edits per word."""
        return {"wer": _compute_error_rate(sums)}

    @property
    def signature(self) -> str:
        """The tokenizer."""
        return f"wer|{self.preset.words_signature}|rapidfuzz:{version('rapidfuzz')}"


class RougeL(SentenceMeanMetric):
    """Mean sentence ROUGE-L of the package rouge_score (Lin 2004): F1 of the longest common subsequence, no stemming.

    Programs differ in how precision and recall make an F, and in what a word is. rouge_score keeps a-z and 0-9 only;
    presets of other languages than English use the words of BLEU.
    """

    labels: ClassVar = {"rougeL": "ROUGE-L"}

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """F over the longest common subsequence of the words: float64 (N,)."""
        scores = np.zeros(len(hypotheses))
        for index, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
            hypothesis_words, reference_words = self.split_words(hypothesis), self.split_words(reference)
            if common := LCSseq.similarity(hypothesis_words, reference_words):
                scores[index] = self.compute_f_score(common / len(hypothesis_words), common / len(reference_words))
        return scores

    def split_words(self, text: str) -> list[str]:
        """The words of `text`."""
        return tokenize(text, None) if self.preset.is_english else self.preset.split_words(text)

    def compute_f_score(self, precision: float, recall: float) -> float:
        """F1; neither is 0."""
        return 2 * precision * recall / (precision + recall)

    @property
    def signature(self) -> str:
        """The variant."""
        words = "rouge_score" if self.preset.is_english else self.preset.words_signature
        return f"rouge_score|rougeL|fmeasure|mean of sentences|words:{words}|stem:no|version:{version('rouge-score')}"


class RougeLMscoco(RougeL):
    """Mean sentence ROUGE-L of MS COCO's caption evaluation (Chen et al. 2015), in which recall has more weight.

    Used by neccam/slt (Sign Language Transformers) and its successors. Words are split at spaces; presets whose words
    are characters use characters.
    """

    labels: ClassVar = {"rougeL_mscoco": "ROUGE-L (mscoco)"}
    variant: ClassVar[str] = f"mscoco|rougeL|beta:{MSCOCO_BETA}"

    def split_words(self, text: str) -> list[str]:
        """The words of `text`."""
        words = self.preset.apply_case(text).split()
        return list("".join(words)) if self.preset.has_character_words else words

    def compute_f_score(self, precision: float, recall: float) -> float:
        """F of beta 1.2."""
        return (1 + MSCOCO_BETA**2) * precision * recall / (recall + MSCOCO_BETA**2 * precision)

    @property
    def signature(self) -> str:
        """The variant."""
        words = "characters" if self.preset.has_character_words else "spaces"
        case = self.preset.case_signature
        return f"{self.variant}|mean of sentences|case:{case}|tok:{words}|rapidfuzz:{version('rapidfuzz')}"


class RougeLSeq2seq(RougeLMscoco):
    """Mean sentence ROUGE-L of google/seq2seq's metrics/rouge.py, whose beta is precision / recall.

    F is near the smaller of precision and recall. Used by FangyunWei/SLRT (TwoStreamNetwork: TwoStream-SLT and its
    single-stream baseline), with the words of `RougeLMscoco`.
    """

    labels: ClassVar = {"rougeL_seq2seq": "ROUGE-L (seq2seq)"}
    variant: ClassVar[str] = "seq2seq|rougeL|beta:precision/recall"

    def compute_f_score(self, precision: float, recall: float) -> float:
        """F of beta = precision / recall."""
        beta = precision / recall
        return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


class ExactMatch(SentenceMeanMetric):
    """Share of hypotheses that equal their reference, outer white space aside; in Asian scripts all white space."""

    labels: ClassVar = {"exact_match": "exact %"}

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """1 for equal texts, else 0: float64 (N,)."""
        pairs = zip(map(self._normalize, hypotheses), map(self._normalize, references), strict=True)
        return np.array([float(hypothesis == reference) for hypothesis, reference in pairs])

    def _normalize(self, text: str) -> str:
        text = self.preset.apply_case(text)
        return "".join(text.split()) if self.preset.has_character_words else text.strip()

    @property
    def signature(self) -> str:
        """Case, and which white space counts."""
        space = "no" if self.preset.has_character_words else "inside"
        return f"exact|case:{self.preset.case_signature}|space:{space}"


class ReducedBleu(Bleu):
    """BLEU-4 without punctuation and the words of a stop list on both sides (How2Sign's rBLEU).

    A pair with an empty side after this does not count; the number of pairs that count is `rbleu_pairs`.

    Args:
        stop_list: a file of words, one per line.

    Raises:
        UserError: the file cannot be read, or has no words.
    """

    labels: ClassVar = {"rbleu": "rBLEU", "rbleu_pairs": "rBLEU pairs"}
    count_keys: ClassVar = frozenset({"rbleu_pairs"})

    def __init__(self, stop_list: Path, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self.stop_words, self._stop_list_signature = read_stop_list(stop_list)

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The statistics of BLEU, and whether the pair counts: float64 (N, 11)."""
        reduced = [list(map(self.reduce, texts)) for texts in (hypotheses, references)]
        is_counted = np.array(
            [bool(hypothesis and reference) for hypothesis, reference in zip(*reduced, strict=True)]
        )
        return np.column_stack([super().extract_statistics(*reduced) * is_counted[:, None], is_counted])

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """BLEU-4, and the number of pairs."""
        return {"rbleu": super().compute_scores(sums[..., :-1])["bleu4"], "rbleu_pairs": sums[..., -1]}

    def reduce(self, text: str) -> str:
        """`text` without punctuation and stop words."""
        words = re.sub(r"[^\w\s]", " ", text).split()
        return " ".join(word for word in words if word.casefold() not in self.stop_words)

    @property
    def signature(self) -> str:
        """sacreBLEU's signature, and the stop list."""
        return f"{super().signature}|reduced|stop:{self._stop_list_signature}"


def _compute_error_rate(sums: np.ndarray) -> np.ndarray:
    """100 * errors / words, from sums (..., 2). As in sacreBLEU's TER, errors without any words are 100."""
    errors, words = sums[..., 0], sums[..., 1]
    return np.where(words > 0, 100 * errors / np.where(words > 0, words, 1), np.where(errors > 0, 100.0, 0.0))


def _make_sacrebleu_signature(metric: Any) -> str:
    metric.num_refs = 1  # sacreBLEU sets it when it computes its first score
    return str(metric.get_signature())
