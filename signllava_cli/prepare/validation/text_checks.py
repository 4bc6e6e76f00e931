"""Translations, paraphrases and keywords: what says nothing, spells markup, repeats, or does not fit."""

import itertools
import re
from collections.abc import Iterable, Sequence

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.words import is_placeholder, words, words_as_written
from signllava_cli.prepare.validation.findings import Findings

_MARKUP = re.compile(r"<\|[^<>|]*\|>|</?[A-Za-z][\w-]*/?>|\[/?INST\]|<</?SYS>>")
_NOTE = "♩♪♫♬🎵🎶"
_SOUND_CAPTION = re.compile(  # atomic groups: no text makes it slow
    r"(?>[\s,.;:!>/–—-]*(?>"
    r"\[[^\[\]]+\]|［[^［］]+］|【[^【】]+】"
    # between round brackets a few words, and no sentence
    r"|\((?>[^\s().!?]+)(?>\s+[^\s().!?]+){0,3}\s*\)|（(?>[^\s（）。！？]+)(?>\s+[^\s（）。！？]+){0,3}\s*）"
    rf"|[{_NOTE}][^{_NOTE}]*[{_NOTE}]|[{_NOTE}]"
    r"))+[\s,.;:!/–—-]*"
)
_NUMBER = re.compile(r"[\d\s.,:%+-]*\d[\d\s.,:%+-]*")


def check_texts(split: str, recordings: Sequence[Recording], findings: Findings) -> None:
    """What is wrong with the texts of each clip, and with those that follow each other."""
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
    written = list(zip(clip.keywords, keywords_as_written(clip.translation, clip.keywords), strict=True))
    if any(stands is None for _, stands in written):
        yield "keyword-not-in-sentence"
    if any(stands is not None and stands != keyword for keyword, stands in written):
        yield "keyword-case"


def is_same_text(one: str, other: str) -> bool:
    """Whether two texts are the same but for space around them."""
    return one.strip() == other.strip()


def is_sound_caption(text: str) -> bool:
    """Whether all of `text` stands between brackets or notes, as captions tell what is heard.

    >>> [is_sound_caption(text) for text in ("[Music] [Applause]", "(audience laughs)", "♪ la la ♪", "【音乐】")]
    [True, True, True, True]
    >>> [is_sound_caption(text) for text in ("[Music] Hello.", "Bake it (slowly).", "(That was in May.)")]
    [False, False, False]
    """
    return bool(_SOUND_CAPTION.fullmatch(text))


def shared_paraphrases(recordings: Iterable[Recording]) -> list[str]:
    """The clips that have the list of paraphrases of a clip with another translation: one of them has wrong labels.

    A single paraphrase may well be that of two translations, but not of three.
    """
    sharing: dict[tuple[str, ...], list[Clip]] = {}
    for recording in recordings:
        for clip in recording.clips:
            said = tuple(text.strip() for text in clip.paraphrases if not is_placeholder(text))
            if said:
                sharing.setdefault(said, []).append(clip)
    return [
        clip.id
        for said, clips in sharing.items()
        if len({tuple(words(clip.translation)) for clip in clips}) >= (2 if len(said) > 1 else 3)
        for clip in clips
    ]


def keywords_as_written(sentence: str, keywords: Sequence[str]) -> list[str | None]:
    """Each of `keywords` as it is written in `sentence`; None where it does not stand there.

    >>> keywords_as_written("They moved to New York.", ["new york", "moved", "old"])
    ['New York', 'moved', None]
    """
    folded, stands = words(sentence), words_as_written(sentence)
    return [_as_written(folded, stands, keyword) for keyword in keywords]


def _as_written(folded: Sequence[str], stands: Sequence[str], keyword: str) -> str | None:
    asked, size = words(keyword), len(words(keyword))
    if not size or asked[0] not in folded:
        return None
    indices = [at for at in range(len(folded)) if folded[at : at + size] == asked]
    written = [list(stands[at : at + size]) for at in indices]
    if words_as_written(keyword) in written:
        return keyword
    return " ".join(written[0]) if written else None
