"""How the texts of splits are written: a split in another style is scored for its style, not for its content."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.findings import Findings

FEW_TEXTS = 20  # a split with fewer texts is not judged
FEW_USES = 5  # a character in fewer texts of one split may be missing in another by chance
CHARACTERS_SHOWN = 10
IN_PART, WHOLLY = 0.2, 0.8  # difference of two shares of texts

_PUNCTUATION = re.compile(r"\w\s*[.,!?;:](?=\s|$)")
_SPACE_BEFORE = re.compile(r"\w\s+[.,!?;:](?=\s|$)")


def _ends_in_punctuation(text: str) -> bool:
    return unicodedata.category(text[-1]).startswith("P")


def _has_upper(text: str) -> bool | None:
    return text != text.lower() if text.lower() != text.upper() else None


def _has_lower(text: str) -> bool | None:
    return text != text.upper() if text.lower() != text.upper() else None


def _has_space_before_punctuation(text: str) -> bool | None:
    return _SPACE_BEFORE.search(text) is not None if _PUNCTUATION.search(text) else None


# What is true or false of a text, or None where the text cannot tell: a script without case, no punctuation.
TRAITS: Mapping[str, Callable[[str], bool | None]] = {
    "end in punctuation": _ends_in_punctuation,
    "hold a capital letter": _has_upper,
    "hold a small letter": _has_lower,
    "have a space before punctuation": _has_space_before_punctuation,
}


@dataclass(frozen=True)
class Share:
    """Of `texts` texts, the `count` that have a trait."""

    count: int
    texts: int

    @property
    def ratio(self) -> float:
        """The share as a number from 0 to 1."""
        return self.count / self.texts


@dataclass(frozen=True)
class Style:
    """How the texts of a split are written.

    `shares`: trait -> share of the texts that can tell. `characters`: in how many texts each stands, without case.
    """

    split: str
    texts: int
    shares: Mapping[str, Share]
    characters: Counter[str]

    def share_of(self, character: str) -> Share:
        """The share of texts in which `character` stands."""
        return Share(self.characters[character], self.texts)


def style_of(split: str, translations: Iterable[str]) -> Style:
    """The style of the texts of a split; empty ones do not count."""
    texts = [text.strip() for text in translations if text.strip()]
    shares = {}
    for trait, has in TRAITS.items():
        told = [answer for text in texts if (answer := has(text)) is not None]
        shares[trait] = Share(sum(told), len(told))
    return Style(split, len(texts), shares, Counter(each for text in texts for each in set(text.lower())))


def check_style(splits: Sequence[AnnotatedSplit], train: str, findings: Findings) -> None:
    """Splits written otherwise than `train`, or than the first split where train is not among them."""
    ordered = sorted(splits, key=lambda split: split.name != train)
    styles = [style_of(split.name, _translations(split)) for split in ordered]
    for style in styles[1:]:
        differences = [*_differing_traits(styles[0], style), *_missing_characters(styles[0], style)]
        if differences:
            kind = "style-differs-wholly" if any(each.is_whole for each in differences) else "style-differs"
            told = sorted(differences, key=lambda each: not each.is_whole)
            detail = "; ".join(each.text for each in told)
            findings.add(kind, [f"annotation.{style.split}.json"], style.split, detail=detail)


def _translations(split: AnnotatedSplit) -> Iterator[str]:
    return (clip.translation for recording in split.recordings for clip in recording.clips)


@dataclass(frozen=True)
class _Difference:
    is_whole: bool
    text: str


def _differing_traits(train: Style, split: Style) -> Iterator[_Difference]:
    for trait in TRAITS:
        there, here = train.shares[trait], split.shares[trait]
        if _exceeds_chance(there, here) and abs(there.ratio - here.ratio) >= IN_PART:
            counts = f"{there.count} of {there.texts} texts of {train.split}, {here.count} of {here.texts} here"
            yield _Difference(_differ_wholly(there, here), f"{trait}: {counts}")


def _missing_characters(train: Style, split: Style) -> Iterator[_Difference]:
    for used, lacking, where in ((train, split, "here"), (split, train, f"of {train.split}")):
        wholly: dict[bool, list[str]] = {True: [], False: []}
        for character, count in used.characters.most_common():
            shares = used.share_of(character), lacking.share_of(character)
            if count >= FEW_USES and not shares[1].count and _exceeds_chance(*shares):
                wholly[_differ_wholly(*shares)].append(character)
        for is_whole, characters in wholly.items():
            if characters:
                shown = ", ".join(map(repr, sorted(characters[:CHARACTERS_SHOWN])))
                more = f" and {len(characters) - CHARACTERS_SHOWN} more" * (len(characters) > CHARACTERS_SHOWN)
                yield _Difference(is_whole, f"no text {where} holds {shown}{more}")


def _exceeds_chance(one: Share, other: Share) -> bool:
    """Whether two shares differ by more than four standard errors: the clips of a recording resemble each other."""
    if min(one.texts, other.texts) < FEW_TEXTS:
        return False
    pooled = (one.count + other.count) / (one.texts + other.texts)
    error = sqrt(pooled * (1 - pooled) * (1 / one.texts + 1 / other.texts))
    return abs(one.ratio - other.ratio) > 4 * error


def _differ_wholly(one: Share, other: Share) -> bool:
    """Whether nearly all have it here and nearly none there, or most here and none there."""
    lower, higher = sorted((one.ratio, other.ratio))
    return higher - lower >= WHOLLY or (lower == 0 and higher >= 0.5)
