"""Chooses keywords of clips: the words of their translations with the lowest document frequencies."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.words import is_placeholder, read_word_lines, words, words_as_written
from signllava_cli.errors import UserError
from signllava_cli.prepare.annotation_edits import edit_annotation

STOP_WORDS = Path(__file__).parent / "stop_words"

# In a small corpus, 5 % of the clips are a few dozen, and a word in so few clips may be their topic.
ALWAYS_ALLOWED_CLIPS = 200
MIN_LETTERS = 2


@dataclass(frozen=True)
class KeywordRule:
    """Which words of a sentence are its keywords.

    A candidate (case-folded, `data.words`) is not a stop word, has two letters or more, and occurs in at least
    `min_clips` clips and in at most the share `max_share` of them; a word in at most `ALWAYS_ALLOWED_CLIPS` clips is
    never too frequent. A sentence gets its `max_keywords` rarest candidates, the first ones of equally rare ones.
    """

    stop_words: frozenset[str]
    max_keywords: int = 8
    min_clips: int = 2
    max_share: float = 0.05


@dataclass(frozen=True)
class KeywordResult:
    """The keywords of a split: `num_before` of `num_clips` clips had some before, `num_filled` clips got new ones.

    `without_keywords`: the ids of the clips without keywords. `vocabulary`: case-folded keyword -> number of clips.
    """

    split: str
    num_clips: int
    num_before: int
    num_filled: int
    without_keywords: list[str]
    vocabulary: Counter[str]


def fill_keywords(
    root: Path, splits: Sequence[str], rule: KeywordRule, replace: bool = False, dry_run: bool = False
) -> list[KeywordResult]:
    """Write keywords chosen by `rule` to the annotation files, for the clips of `splits` without keywords.

    Document frequencies are counted in the first split, so all splits have the same vocabulary: a word that is not in
    the first split is never a keyword.

    Args:
        replace: choose the keywords of all clips; a clip without candidates gets none.
        dry_run: print the changes without writing them.

    Raises:
        UserError: a split is missing or malformed; then no file is written.
    """
    recordings_of = {split: read_annotations(root, split) for split in splits}
    frequencies = document_frequencies(
        (clip.translation for recording in recordings_of[splits[0]] for clip in recording.clips), rule
    )
    keywords_of = {
        split: _choose_for_clips(recordings, frequencies, rule.max_keywords, replace)
        for split, recordings in recordings_of.items()
    }
    for split, keywords in keywords_of.items():
        edit_annotation(root, split, "keywords", keywords, dry_run)
    return [_summarize(split, recordings_of[split], keywords) for split, keywords in keywords_of.items()]


def document_frequencies(sentences: Iterable[str], rule: KeywordRule) -> dict[str, int]:
    """The candidates, case-folded, and the number of `sentences` that contain each."""
    word_sets = [set(words(sentence)) for sentence in sentences]
    counts = Counter(word for word_set in word_sets for word in word_set)
    return {
        word: count
        for word, count in counts.items()
        if word not in rule.stop_words
        and sum(map(str.isalpha, word)) >= MIN_LETTERS
        and count >= rule.min_clips
        and (count <= ALWAYS_ALLOWED_CLIPS or count / len(word_sets) <= rule.max_share)
    }


def choose_keywords(sentence: str, frequencies: Mapping[str, int], max_keywords: int) -> tuple[str, ...]:
    """The `max_keywords` rarest words of `sentence` among `frequencies`, each once, as written and in sentence order.

    >>> choose_keywords("Bread, bread and fresh Butter", {"bread": 9, "butter": 2, "fresh": 4}, max_keywords=2)
    ('fresh', 'Butter')
    """
    written: dict[str, str] = {}
    for word, spelling in zip(words(sentence), words_as_written(sentence), strict=True):
        if word in frequencies:
            written.setdefault(word, spelling)
    by_frequency = sorted(written, key=lambda word: frequencies[word])  # stable: the first of equal ones first
    rarest = set(by_frequency[:max_keywords])
    return tuple(spelling for word, spelling in written.items() if word in rarest)


def shipped_stop_words(language: str) -> frozenset[str]:
    """The stop words shipped with the package.

    Raises:
        UserError: the package has none for `language`.
    """
    file = STOP_WORDS / f"{language}.txt"
    languages = sorted(path.stem for path in STOP_WORDS.glob("*.txt"))
    if language not in languages:
        raise UserError(
            f"No stop words for language {language}: choose one of {', '.join(languages)}, or --stop-list."
        )
    return read_stop_words(file)


def read_stop_words(file: Path) -> frozenset[str]:
    """The words of a UTF-8 file, separated by anything; `#` begins a comment.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    return frozenset(word for line in read_word_lines(file) for word in words(line))


def _choose_for_clips(
    recordings: Sequence[Recording], frequencies: Mapping[str, int], max_keywords: int, replace: bool
) -> dict[str, tuple[str, ...]]:
    """Clip id -> new keywords."""
    keywords_of = {}
    for clip in (clip for recording in recordings for clip in recording.clips):
        keywords = choose_keywords(clip.translation, frequencies, max_keywords)
        if replace or (keywords and not _non_empty(clip.keywords)):
            keywords_of[clip.id] = keywords
    return keywords_of


def _summarize(
    split: str, recordings: Sequence[Recording], new_keywords: Mapping[str, tuple[str, ...]]
) -> KeywordResult:
    old_keywords = {clip.id: _non_empty(clip.keywords) for recording in recordings for clip in recording.clips}
    all_keywords = {**old_keywords, **new_keywords}
    return KeywordResult(
        split=split,
        num_clips=len(all_keywords),
        num_before=sum(map(bool, old_keywords.values())),
        num_filled=sum(map(bool, new_keywords.values())),
        without_keywords=[clip for clip, keywords in all_keywords.items() if not keywords],
        vocabulary=Counter(word for keywords in all_keywords.values() for word in {k.casefold() for k in keywords}),
    )


def _non_empty(keywords: Sequence[str]) -> tuple[str, ...]:
    return tuple(keyword for keyword in keywords if not is_placeholder(keyword))
