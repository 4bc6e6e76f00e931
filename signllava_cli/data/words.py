"""Splits text into words: the one rule for keywords, yes/no questions, and validation."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import regex

from signllava_cli.files import read_text

# In a script without spaces between words, each letter or digit is a word. In other scripts, a word is a run of
# letters, marks and digits, with apostrophes and hyphens inside.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
    rf"(?:['\u2019\-][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+)*"
)

# A word with the punctuation at it; in a script without spaces, each character.
_PRINTED_WORD = regex.compile(rf"(?V1)[{_UNSPACED}]\p{{M}}*|[^\s{_UNSPACED}]+")
_CHARACTER = regex.compile(rf"[{_UNSPACED}]")

# What tables and LLMs write for a missing text.
PLACEHOLDERS = frozenset({"", "nan", "<none>"})


def is_placeholder(text: str) -> bool:
    """Whether `text` is empty, or what tools write for a missing text: `nan`, `<none>`."""
    return text.strip() in PLACEHOLDERS


def words(text: str) -> list[str]:
    """The words of `text` in order, case-folded; apostrophes and hyphens inside a word belong to it.

    >>> words("我今天")
    ['我', '今', '天']
    >>> words("It's ACANTHUS-like, isn\u2019t it?")
    ["it's", 'acanthus-like', "isn't", 'it']
    """
    return [_casefold(word) for word in words_as_written(text)]


def read_word_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file of words that are not empty; `#` begins a comment.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    lines = (line.partition("#")[0].strip() for line in read_text(file).splitlines())
    return [line for line in lines if line]


def words_as_written(text: str) -> list[str]:
    """The words of `text` in order, with their original case and spelling."""
    return [str(word) for word in _WORD.findall(text)]


def printed_words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of `text` in order, as it is printed: with the punctuation at it.

    >>> printed_words("It rains, 我在")
    [(0, 2), (3, 9), (10, 11), (11, 12)]
    """
    return [match.span() for match in _PRINTED_WORD.finditer(text)]


def is_character(word: str) -> bool:
    """Whether `word` is of a script without spaces between words, in which each character counts as a word.

    >>> [is_character(word) for word in words("我 bake")]
    [True, False]
    """
    return bool(_CHARACTER.match(word))


def _casefold(word: str) -> str:
    """`word` case-folded, in Unicode's composed form (NFC), with straight apostrophes."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).replace("\u2019", "'").casefold())


def split_compounds(sentence: Sequence[str]) -> list[str]:
    """The words `sentence` with compounds and contractions split at hyphens and apostrophes.

    >>> split_compounds(["the", "dog's", "acanthus-like", "ear"])
    ['the', 'dog', 's', 'acanthus', 'like', 'ear']
    """
    return [part for word in sentence for part in re.split(r"['\-]", word)]


def contains_phrase(sentence: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words `phrase` occur in the words `sentence`, adjacent and in order. False for an empty phrase.

    >>> contains_phrase(words("They moved to New York."), words("new york"))
    True
    >>> contains_phrase(words("They bake."), words("bak"))
    False
    """
    size = len(phrase)
    return size > 0 and any(
        list(sentence[start : start + size]) == list(phrase) for start in range(len(sentence) - size + 1)
    )
