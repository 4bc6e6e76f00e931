"""What a word is: the one rule behind keywords, yes/no questions, and validation."""

import re
import unicodedata
from collections.abc import Sequence

import regex

# A letter or digit of a script without spaces between words is a word; elsewhere letters, marks and digits in a row
# are, with apostrophes and hyphens inside.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
    rf"(?:['\u2019\-][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+)*"
)

_CHARACTER = regex.compile(rf"[{_UNSPACED}]")

# What a table or an LLM writes where it has no text.
NO_TEXT = frozenset({"", "nan", "<none>"})


def is_placeholder(text: str) -> bool:
    """Whether `text` is empty, or one of the marks that tools leave in place of a text: `nan`, `<none>`."""
    return text.strip() in NO_TEXT


def words(text: str) -> list[str]:
    """The words of `text` in order, case-folded; apostrophes and hyphens inside a word belong to it.

    >>> words("我今天")
    ['我', '今', '天']
    >>> words("It's ACANTHUS-like, isn\u2019t it?")
    ["it's", 'acanthus-like', "isn't", 'it']
    """
    return [_folded(word) for word in words_as_written(text)]


def words_as_written(text: str) -> list[str]:
    """The words of `text` in order, as they stand there."""
    return [str(word) for word in _WORD.findall(text)]


def is_character(word: str) -> bool:
    """Whether `word` is of a script without spaces between words, where each character is taken for a word.

    >>> [is_character(word) for word in words("我 bake")]
    [True, False]
    """
    return bool(_CHARACTER.match(word))


def _folded(word: str) -> str:
    """`word` without its case, and in one of the ways in which Unicode can spell it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).replace("\u2019", "'").casefold())


def split_compounds(sentence: Sequence[str]) -> list[str]:
    """The parts of compounds and contractions in the words `sentence`.

    >>> parts(["the", "dog's", "acanthus-like", "ear"])
    ['the', 'dog', 's', 'acanthus', 'like', 'ear']
    """
    return [part for word in sentence for part in re.split(r"['\-]", word)]


def contains_phrase(sentence: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words `phrase` stand one after the other in the words `sentence`; no words stand nowhere.

    >>> holds(words("They moved to New York."), words("new york"))
    True
    >>> holds(words("They bake."), words("bak"))
    False
    """
    size = len(phrase)
    return size > 0 and any(list(sentence[at : at + size]) == list(phrase) for at in range(len(sentence) - size + 1))
