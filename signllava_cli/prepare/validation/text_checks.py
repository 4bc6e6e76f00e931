"""Checks translations, paraphrases and keywords: placeholders, markup, repetitions, contradictions."""

import itertools
import re
from collections.abc import Iterable, Sequence

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.words import is_placeholder, words, words_as_written
from signllava_cli.prepare.validation.findings import Findings

_MARKUP = re.compile(r"<\|[^<>|]*\|>|</?[A-Za-z][\w-]*/?>|\[/?INST\]|<</?SYS>>")
_MUSIC_NOTES = "♩♪♫♬🎵🎶"
_SOUND_CAPTION = re.compile(  # atomic groups: the run time is linear in the text
    r"(?>[\s,.;:!>/–—-]*(?>"
    r"\[[^\[\].!?。！？]+\]|［[^［］.!?。！？]+］|【[^【】.!?。！？]+】"  # not a sentence
    # in parentheses also at most four words
    r"|\((?>[^\s().!?]+)(?>\s+[^\s().!?]+){0,3}\s*\)|（(?>[^\s（）。！？]+)(?>\s+[^\s（）。！？]+){0,3}\s*）"
    rf"|[{_MUSIC_NOTES}][^{_MUSIC_NOTES}]*[{_MUSIC_NOTES}]|[{_MUSIC_NOTES}]"
    r"))+[\s,.;:!/–—-]*"
)
_NUMBER = re.compile(r"[\d\s.,:%+-]*\d[\d\s.,:%+-]*")


def check_texts(split: str, recordings: Sequence[Recording], findings: Findings) -> None:
    """Add the findings of the texts of each clip, and of consecutive clips."""
    for recording in recordings:
        for clip in recording.clips:
            for name in _failed_checks(clip):
                findings.add(name, [clip.id], split)
        for before, clip in itertools.pairwise(recording.clips):
            if is_same_text(before.translation, clip.translation):
                findings.add("text-repeated", [clip.id], split)
    findings.add("paraphrases-shared", shared_paraphrases(recordings), split)


def _failed_checks(clip: Clip) -> Iterable[str]:
    if is_placeholder(clip.translation):
        yield "text-nan"
    elif is_sound_caption(clip.translation):
        yield "text-is-sound-caption"
    elif not any(map(str.isalnum, clip.translation)):
        yield "text-no-words"
    elif _NUMBER.fullmatch(clip.translation):
        yield "text-is-number"
    elif any(_MARKUP.search(text) for text in (clip.translation, *clip.paraphrases) if not is_placeholder(text)):
        yield "text-markup"
    if any(map(is_placeholder, clip.paraphrases)):
        yield "paraphrase-none"
    if any(is_same_text(clip.translation, text) for text in clip.paraphrases):
        yield "paraphrase-equals-text"
    spellings = list(zip(clip.keywords, keywords_as_written(clip.translation, clip.keywords), strict=True))
    if any(spelling is None for _, spelling in spellings):
        yield "keyword-not-in-sentence"
    if any(spelling is not None and spelling != keyword for keyword, spelling in spellings):
        yield "keyword-case"


def is_same_text(first: str, second: str) -> bool:
    """Whether two texts are equal except for surrounding space."""
    return first.strip() == second.strip()


def is_sound_caption(text: str) -> bool:
    """Whether all of `text` is in brackets or music notes, as in captions of sounds, and is no sentence or number.

    >>> [is_sound_caption(text) for text in ("[Music] [Applause]", "(audience laughs)", "♪ la la ♪", "【音乐】")]
    [True, True, True, True]
    >>> [is_sound_caption(text) for text in ("[Music] Hello.", "(That was in May.)", "[He bakes.]", "(2010)")]
    [False, False, False, False]
    """
    return bool(_SOUND_CAPTION.fullmatch(text)) and not _NUMBER.fullmatch(text.strip("()[] "))


def shared_paraphrases(recordings: Iterable[Recording]) -> list[str]:
    """Ids of clips with the same list of paraphrases but different translations: some of them have wrong labels.

    Two translations may share a single paraphrase; three may not.
    """
    clips_of: dict[tuple[str, ...], list[Clip]] = {}
    for recording in recordings:
        for clip in recording.clips:
            texts = tuple(text.strip() for text in clip.paraphrases if not is_placeholder(text))
            if texts:
                clips_of.setdefault(texts, []).append(clip)
    return [
        clip.id
        for texts, clips in clips_of.items()
        if len({tuple(words(clip.translation)) for clip in clips}) >= (2 if len(texts) > 1 else 3)
        for clip in clips
    ]


def keywords_as_written(sentence: str, keywords: Sequence[str]) -> list[str | None]:
    """The spelling of each of `keywords` in `sentence`; None if the sentence does not contain it.

    >>> keywords_as_written("They moved to New York.", ["new york", "moved", "old"])
    ['New York', 'moved', None]
    """
    folded, written = words(sentence), words_as_written(sentence)
    return [_find_keyword(folded, written, keyword) for keyword in keywords]


def _find_keyword(folded: Sequence[str], written: Sequence[str], keyword: str) -> str | None:
    """`folded`, `written`: the words of the sentence, case-folded and as they are."""
    keyword_words = words(keyword)
    size = len(keyword_words)
    if not size or keyword_words[0] not in folded:
        return None
    starts = [start for start in range(len(folded)) if folded[start : start + size] == keyword_words]
    spellings = [list(written[start : start + size]) for start in starts]
    if words_as_written(keyword) in spellings:
        return keyword
    return " ".join(spellings[0]) if spellings else None
