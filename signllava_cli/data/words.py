"""What a word is: the one rule behind keywords, yes/no questions, and the doctor."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*")

# What a table or an LLM writes where it has no text.
NO_TEXT = frozenset({"", "nan", "<none>"})


def says_nothing(text: str) -> bool:
    """Whether `text` is empty, or one of the marks that tools leave in place of a text: `nan`, `<none>`."""
    return text.strip() in NO_TEXT


def words(text: str) -> list[str]:
    """The words of `text` in order, case-folded; apostrophes and hyphens inside a word belong to it.

    >>> words("It's ACANTHUS-like, isn\u2019t it?")
    ["it's", 'acanthus-like', "isn't", 'it']
    """
    return [word.replace("\u2019", "'").casefold() for word in written_words(text)]


def written_words(text: str) -> list[str]:
    """The words of `text` in order, as they stand there."""
    return _WORD.findall(text)


def parts(sentence: Sequence[str]) -> list[str]:
    """The parts of compounds and contractions in the words `sentence`.

    >>> parts(["the", "dog's", "acanthus-like", "ear"])
    ['the', 'dog', 's', 'acanthus', 'like', 'ear']
    """
    return [part for word in sentence for part in re.split(r"['\-]", word)]


def holds(sentence: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words `phrase` stand one after the other in the words `sentence`; no words stand nowhere.

    >>> holds(words("They moved to New York."), words("new york"))
    True
    >>> holds(words("They bake."), words("bak"))
    False
    """
    size = len(phrase)
    return size > 0 and any(list(sentence[at : at + size]) == list(phrase) for at in range(len(sentence) - size + 1))
