"""Keywords of clips, chosen from the words of their translations by how many clips hold each word."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.words import is_placeholder, words, words_as_written
from signllava_cli.errors import UserError
from signllava_cli.prepare.annotation_edits import edit_annotation

STOP_WORDS = Path(__file__).parent / "stop_words"

# In a small corpus a few dozen clips are already 5 %, and a word in so few of them may well be what they are about.
ALWAYS_ALLOWED_CLIPS = 200  # clips
MIN_LETTERS = 2


@dataclass(frozen=True)
class KeywordRule:
    """Which words of a sentence are its keywords.

    A word (case-folded, `data.words`) may be one when it is no stop word, has two letters or more (so no bare number
    is one), and stands in at least `fewest_clips` clips and in at most the share `largest_share` of them. The share
    binds only words that stand in more than `NEVER_TOO_FREQUENT` clips. Of these words a sentence gets the `most`
    rarest; of equally rare ones the first.
    """

    stop_words: frozenset[str]
    most: int = 8
    fewest_clips: int = 2
    largest_share: float = 0.05


@dataclass(frozen=True)
class KeywordResult:
    """What became of a split: how many of its clips had keywords, and how many were given some.

    `without` names the clips that have none now. `vocabulary` counts the clips of each keyword there is now,
    case-folded.
    """

    split: str
    clips: int
    had: int
    filled: int
    without: list[str]
    vocabulary: Counter[str]


def fill_keywords(
    root: Path, splits: Sequence[str], rule: KeywordRule, replace: bool = False, dry_run: bool = False
) -> list[KeywordResult]:
    """Give the clips of `splits` that have no keywords those of `rule`, in their annotation files.

    How many clips hold a word is counted in the first split alone, so a keyword means the same in all of them and a
    word that the first does not know is none.

    Args:
        replace: choose the keywords of every clip anew; one that the rule finds none for is left without.
        dry_run: only say what would change.

    Raises:
        UserError: a split is missing or malformed; then none is written.
    """
    opened = {split: read_annotations(root, split) for split in splits}
    counts = document_frequencies((clip.translation for each in opened[splits[0]] for clip in each.clips), rule)
    chosen = {
        split: _choose_for_clips(recordings, counts, rule.most, replace) for split, recordings in opened.items()
    }
    for split, keywords in chosen.items():
        edit_annotation(root, split, "keywords", keywords, dry_run)
    return [_summarize(split, opened[split], keywords) for split, keywords in chosen.items()]


def document_frequencies(sentences: Iterable[str], rule: KeywordRule) -> dict[str, int]:
    """The words that may be keywords, case-folded, and how many of `sentences` hold each."""
    folded = [set(words(sentence)) for sentence in sentences]
    counts = Counter(word for sentence in folded for word in sentence)
    return {
        word: count
        for word, count in counts.items()
        if word not in rule.stop_words
        and sum(map(str.isalpha, word)) >= MIN_LETTERS
        and count >= rule.fewest_clips
        and (count <= ALWAYS_ALLOWED_CLIPS or count / len(folded) <= rule.largest_share)
    }


def choose_keywords(sentence: str, counts: Mapping[str, int], most: int) -> tuple[str, ...]:
    """The `most` rarest words of `sentence` that `counts` knows, each once, as and in the order they stand there.

    >>> choose_keywords("Bread, bread and fresh Butter", {"bread": 9, "butter": 2, "fresh": 4}, most=2)
    ('fresh', 'Butter')
    """
    written: dict[str, str] = {}
    for word, as_it_stands in zip(words(sentence), words_as_written(sentence), strict=True):
        if word in counts:
            written.setdefault(word, as_it_stands)
    rarest = set(sorted(written, key=lambda word: counts[word])[:most])  # stable: of equals, the first
    return tuple(as_it_stands for word, as_it_stands in written.items() if word in rarest)


def shipped_stop_words(language: str) -> frozenset[str]:
    """The stop words that come with the package.

    Raises:
        UserError: there are none for `language`.
    """
    file = STOP_WORDS / f"{language}.txt"
    there = sorted(path.stem for path in STOP_WORDS.glob("*.txt"))
    if language not in there:
        raise UserError(f"No stop words for language {language}: choose one of {', '.join(there)}, or --stop-list.")
    return read_stop_words(file)


def read_stop_words(file: Path) -> frozenset[str]:
    """The words in a UTF-8 file, in any layout; `#` begins a comment.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text.") from None
    return frozenset(word for line in lines for word in words(line.partition("#")[0]))


def _choose_for_clips(
    recordings: Sequence[Recording], counts: Mapping[str, int], most: int, replace: bool
) -> dict[str, tuple[str, ...]]:
    """The keywords of each clip that is given new ones, by its id."""
    chosen = {}
    for clip in (clip for recording in recordings for clip in recording.clips):
        keywords = choose_keywords(clip.translation, counts, most)
        if replace or (keywords and not _non_empty(clip.keywords)):
            chosen[clip.id] = keywords
    return chosen


def _summarize(split: str, recordings: Sequence[Recording], chosen: Mapping[str, tuple[str, ...]]) -> KeywordResult:
    had = {clip.id: _non_empty(clip.keywords) for each in recordings for clip in each.clips}
    now = {**had, **chosen}
    return KeywordResult(
        split=split,
        clips=len(now),
        had=sum(map(bool, had.values())),
        filled=sum(map(bool, chosen.values())),
        without=[clip for clip, keywords in now.items() if not keywords],
        vocabulary=Counter(word for keywords in now.values() for word in {each.casefold() for each in keywords}),
    )


def _non_empty(keywords: Sequence[str]) -> tuple[str, ...]:
    return tuple(keyword for keyword in keywords if not is_placeholder(keyword))
