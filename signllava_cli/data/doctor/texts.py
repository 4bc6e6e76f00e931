"""Translations, paraphrases and keywords: what says nothing, spells markup, repeats, or does not fit."""

import itertools
import re
from collections.abc import Iterable, Sequence

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.doctor.findings import Findings
from signllava_cli.data.words import says_nothing, words, written_words

_MARKUP = re.compile(r"<\|[^<>|]*\|>|</?[A-Za-z][\w-]*/?>|\[/?INST\]|<</?SYS>>")
_NUMBER = re.compile(r"[\d\s.,:%+-]*\d[\d\s.,:%+-]*")


def check_texts(split: str, recordings: Iterable[Recording], findings: Findings) -> None:
    """What is wrong with the texts of each clip, and with those that follow each other."""
    for recording in recordings:
        for clip in recording.clips:
            for name in _ailments(clip):
                findings.add(name, [clip.id], split)
        for before, clip in itertools.pairwise(recording.clips):
            if same_text(before.translation, clip.translation):
                findings.add("text-repeated", [clip.id], split)


def _ailments(clip: Clip) -> Iterable[str]:
    if says_nothing(clip.translation):
        yield "text-nan"
    elif not any(map(str.isalnum, clip.translation)):
        yield "text-no-words"
    elif _NUMBER.fullmatch(clip.translation):
        yield "text-is-number"
    elif any(_MARKUP.search(text) for text in (clip.translation, *clip.paraphrases) if not says_nothing(text)):
        yield "text-markup"
    if any(map(says_nothing, clip.paraphrases)):
        yield "paraphrase-none"
    if any(same_text(clip.translation, text) for text in clip.paraphrases):
        yield "paraphrase-equals-text"
    written = list(zip(clip.keywords, keywords_as_written(clip.translation, clip.keywords), strict=True))
    if any(stands is None for _, stands in written):
        yield "keyword-not-in-sentence"
    if any(stands is not None and stands != keyword for keyword, stands in written):
        yield "keyword-case"


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same but for space around them."""
    return one.strip() == other.strip()


def keywords_as_written(sentence: str, keywords: Sequence[str]) -> list[str | None]:
    """Each of `keywords` as it is written in `sentence`; None where it does not stand there.

    >>> keywords_as_written("They moved to New York.", ["new york", "moved", "old"])
    ['New York', 'moved', None]
    """
    folded, stands = words(sentence), written_words(sentence)
    return [_as_written(folded, stands, keyword) for keyword in keywords]


def _as_written(folded: Sequence[str], stands: Sequence[str], keyword: str) -> str | None:
    asked, size = words(keyword), len(words(keyword))
    if not size or asked[0] not in folded:
        return None
    places = [at for at in range(len(folded)) if folded[at : at + size] == asked]
    written = [list(stands[at : at + size]) for at in places]
    if written_words(keyword) in written:
        return keyword
    return " ".join(written[0]) if written else None
