"""What the model does: where it is good and bad, what it misses and invents, and whether a reference leaked to it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from signllava_cli.data.leaks import is_leaked
from signllava_cli.data.words import words
from signllava_cli.evaluation.metrics.base import CountedMetric
from signllava_cli.evaluation.systems import UNKNOWN
from signllava_cli.generation.prediction import Prediction
from signllava_cli.prepare.keywords import STOP_WORDS, shipped_stop_words

MAX_WORDS = 20
FUNCTION_WORD_SHARE = 0.05  # a word in more of the references than this says little about one of them
Bucket = Callable[[Prediction], str | None]


@dataclass(frozen=True)
class Counted:
    """A metric, and what it counts in each clip of a system: float64 (N, K)."""

    metric: CountedMetric
    counts: np.ndarray

    def score(self, key: str, clips: Sequence[int]) -> float:
        """The figure `key` of the clips with these indices."""
        return float(self.metric.scores(self.counts[list(clips)].sum(axis=0))[key])


def analyze(rows: Sequence[Prediction], counted: Mapping[str, Counted], language: str) -> dict[str, Any]:
    """Facts about the hypotheses of `rows`, for scores.json.

    `by`: the figures of `counted`, BLEU-4 and chrF2, of the clips in each bucket. `without_content_word`: how many
    hypotheses, in percent, have no content word of their reference (one that stands in at most 5 % of the
    references). `repeated`: how many, in percent, another clip has word for word. `missed` and `invented`: words that
    the references have and the hypotheses lack, and the other way round, with how often; without the function words
    of `language`. `leaked`: ids of clips whose reference stood in the context that they really saw.
    """
    said = [Counter(words(row.hypothesis)) for row in rows]
    meant = [Counter(words(row.reference)) for row in rows]
    texts = Counter(row.hypothesis.strip().casefold() for row in rows if row.hypothesis.strip())
    content = _content_words(meant)
    judged = [
        (ours, set(theirs) & content) for ours, theirs in zip(said, meant, strict=True) if set(theirs) & content
    ]
    pairs = list(zip(said, meant, strict=True))
    function = _function_words(meant, language)
    return {
        "by": {name: _score_buckets(rows, bucket, counted) for name, bucket in BUCKETS.items()},
        "without_content_word": _percent(sum(1 for ours, wanted in judged if not wanted & set(ours)), len(judged)),
        "repeated": _percent(sum(count for count in texts.values() if count > 1), len(rows)),
        "missed": _most_common((theirs - ours for ours, theirs in pairs), function),
        "invented": _most_common((ours - theirs for ours, theirs in pairs), function),
        "leaked": [row.id for row in rows if is_leaked(row.reference, row.context)],
    }


def sentence_gains(rows: Sequence[Prediction], own: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Clip id -> what its score in `own` (N,) gains, or loses, against the same clip's in `baseline` (N,)."""
    return {row.id: round(float(each), 2) for row, each in zip(rows, own - baseline, strict=True)}


def _score_buckets(
    rows: Sequence[Prediction], bucket: Bucket, counted: Mapping[str, Counted]
) -> dict[str, dict[str, float]]:
    """Bucket -> number of clips, and each figure of `counted`; the buckets in their order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if (name := bucket(row)) is not None:
            groups[name].append(number)
    return {
        name: {
            "clips": len(groups[name]),
            **{key: round(each.score(key, groups[name]), 2) for key, each in counted.items()},
        }
        for name in sort_buckets(groups)
    }


def sort_buckets(names: Iterable[str]) -> list[str]:
    """The buckets `4-7` before `13-20`, and recordings by their names."""

    def index(name: str) -> tuple[int, str]:
        first = name.partition("-")[0].rstrip("+")
        return (int(first) if first.isdecimal() else 0), name

    return sorted(names, key=index)


def _bucket_label(value: int, bounds: Sequence[int]) -> str:
    """The bucket of `value`: from one of the `bounds` to before the next; what lies below the first is in its."""
    at = max((index for index, bound in enumerate(bounds) if value >= bound), default=0)
    if at == len(bounds) - 1:
        return f"{bounds[at]}+"
    last = bounds[at + 1] - 1
    return str(last) if last == bounds[at] else f"{bounds[at]}-{last}"


BUCKETS: dict[str, Bucket] = {
    "context_sentences": lambda row: (
        None if row.context_source == UNKNOWN else _bucket_label(len(row.context), (0, 1, 2, 3, 5, 9))
    ),
    "position": lambda row: _bucket_label(row.position, (0, 1, 2, 5, 10, 20, 50)),
    "reference_words": lambda row: _bucket_label(len(words(row.reference)), (0, 4, 8, 13, 21, 31)),
    "frames": lambda row: None if row.frames is None else _bucket_label(row.frames, (0, 50, 100, 200, 400, 800)),
    "recording": lambda row: row.recording,
}


def _content_words(texts: Sequence[Counter[str]]) -> set[str]:
    in_texts = Counter(word for text in texts for word in text)
    return {word for word, count in in_texts.items() if count <= max(1, FUNCTION_WORD_SHARE * len(texts))}


def _function_words(texts: Sequence[Counter[str]], language: str) -> frozenset[str]:
    """The stop words of `language`; where the package has none, the words in more than 5 % of `texts`.

    A list, where there is one: in a small world such as the weather, words in many sentences are its content.
    """
    if (STOP_WORDS / f"{language}.txt").is_file():
        return shipped_stop_words(language)
    return frozenset(word for text in texts for word in text) - _content_words(texts)


def _most_common(counts: Iterable[Counter[str]], left_out: frozenset[str]) -> list[tuple[str, int]]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return Counter({word: count for word, count in total.items() if word not in left_out}).most_common(MAX_WORDS)


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
