"""Where a system is good and bad: scores by kind of clip, missed and invented words, leaked references."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from signllava_cli.data.leaks import is_leaked
from signllava_cli.data.words import words
from signllava_cli.evaluation.buckets import score_buckets
from signllava_cli.evaluation.metrics.base import MetricStatistics
from signllava_cli.generation.prediction import Prediction
from signllava_cli.prepare.keywords import STOP_WORDS, shipped_stop_words

MAX_WORDS = 20
FUNCTION_WORD_SHARE = 0.05  # a word in a larger share of the references is not a content word


def analyze(rows: Sequence[Prediction], statistics: Mapping[str, MetricStatistics], language: str) -> dict[str, Any]:
    """The analysis of the hypotheses of `rows` in scores.json.

    `buckets`: the scores whose keys are those of `statistics`, of the clips in each bucket. `without_content_word`:
    percent of hypotheses that have no content word of their reference (a word in at most 5 % of the references).
    `repeated_hypotheses`: percent of hypotheses that several clips share. `missed_words`, `invented_words`: words
    that references have and hypotheses lack, and vice versa, with their counts and without the function words of
    `language`. `leaked_clips`: ids of clips whose reference was in the context that the system saw.
    """
    hypothesis_words = [Counter(words(row.hypothesis)) for row in rows]
    reference_words = [Counter(words(row.reference)) for row in rows]
    pairs = list(zip(hypothesis_words, reference_words, strict=True))
    texts = Counter(row.hypothesis.strip().casefold() for row in rows if row.hypothesis.strip())
    all_content_words = _find_content_words(reference_words)
    content_pairs = [
        (hypothesis, content_words)
        for hypothesis, reference in pairs
        if (content_words := set(reference) & all_content_words)
    ]
    num_without = sum(1 for hypothesis, content_words in content_pairs if not content_words & set(hypothesis))
    function_words = _find_function_words(reference_words, language)
    return {
        "buckets": score_buckets(rows, statistics),
        "without_content_word": _compute_percent(num_without, len(content_pairs)),
        "repeated_hypotheses": _compute_percent(sum(count for count in texts.values() if count > 1), len(rows)),
        "missed_words": _count_most_common(
            (reference - hypothesis for hypothesis, reference in pairs), function_words
        ),
        "invented_words": _count_most_common(
            (hypothesis - reference for hypothesis, reference in pairs), function_words
        ),
        "leaked_clips": [row.id for row in rows if is_leaked(row.reference, row.context)],
    }


def compute_sentence_gains(rows: Sequence[Prediction], scores: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Clip id -> the difference of its score in `scores` (N,) and in `baseline` (N,)."""
    return {row.id: round(float(gain), 2) for row, gain in zip(rows, scores - baseline, strict=True)}


def _find_content_words(texts: Sequence[Counter[str]]) -> set[str]:
    num_texts = Counter(word for text in texts for word in text)
    return {word for word, count in num_texts.items() if count <= max(1, FUNCTION_WORD_SHARE * len(texts))}


def _find_function_words(texts: Sequence[Counter[str]], language: str) -> frozenset[str]:
    """The stop words of `language`; if the package has no list of them, the words in more than 5 % of `texts`.

    A list is preferred: in a corpus with one topic, such as the weather, content words are in many sentences.
    """
    if (STOP_WORDS / f"{language}.txt").is_file():
        return shipped_stop_words(language)
    return frozenset(word for text in texts for word in text) - _find_content_words(texts)


def _count_most_common(counts: Iterable[Counter[str]], excluded: frozenset[str]) -> list[tuple[str, int]]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return Counter({word: count for word, count in total.items() if word not in excluded}).most_common(MAX_WORDS)


def _compute_percent(part: int, total: int) -> float:
    return round(100 * part / total, 2) if total else 0.0
