"""Compares the writing style of splits: the scores of a split in another style measure the style, not the content."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.findings import Findings

MIN_TEXTS = 20  # a split with fewer texts is not compared
MIN_USES = 5  # a character in fewer texts of one split may be missing in another by chance
MAX_CHARACTERS = 10  # shown
MIN_DIFFERENCE, STRONG_DIFFERENCE = 0.2, 0.8  # of two shares of texts

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


# Each trait is true or false of a text, or None if it does not apply: a script without case, no punctuation.
TRAITS: Mapping[str, Callable[[str], bool | None]] = {
    "end in punctuation": _ends_in_punctuation,
    "hold a capital letter": _has_upper,
    "hold a small letter": _has_lower,
    "have a space before punctuation": _has_space_before_punctuation,
}


@dataclass(frozen=True)
class TraitShare:
    """Of `texts` texts, the `count` that have a trait."""

    count: int
    texts: int

    @property
    def ratio(self) -> float:
        """The share as a number from 0 to 1."""
        return self.count / self.texts


@dataclass(frozen=True)
class Style:
    """The writing style of a split with `texts` texts.

    `shares`: trait -> share of the texts to which it applies. `characters`: lower-case character -> number of texts
    that contain it.
    """

    split: str
    texts: int
    shares: Mapping[str, TraitShare]
    characters: Counter[str]

    def share_of(self, character: str) -> TraitShare:
        """The share of texts that contain `character`."""
        return TraitShare(self.characters[character], self.texts)


def measure_style(split: str, translations: Iterable[str]) -> Style:
    """The style of the texts of a split; empty texts are ignored."""
    texts = [text.strip() for text in translations if text.strip()]
    shares = {}
    for trait, has_trait in TRAITS.items():
        values = [value for text in texts if (value := has_trait(text)) is not None]
        shares[trait] = TraitShare(sum(values), len(values))
    return Style(split, len(texts), shares, Counter(character for text in texts for character in set(text.lower())))


def check_style(splits: Sequence[AnnotatedSplit], train: str, findings: Findings) -> None:
    """Add findings for splits whose style differs from that of `train`, or of the first split without `train`."""
    ordered = sorted(splits, key=lambda split: split.name != train)
    styles = [measure_style(split.name, _translations(split)) for split in ordered]
    for style in styles[1:]:
        differences = [*_differing_traits(styles[0], style), *_missing_characters(styles[0], style)]
        if differences:
            is_strong = any(difference.is_strong for difference in differences)
            differences.sort(key=lambda difference: not difference.is_strong)
            detail = "; ".join(difference.text for difference in differences)
            name = "style-differs-wholly" if is_strong else "style-differs"
            findings.add(name, [f"annotation.{style.split}.json"], style.split, detail=detail)


def _translations(split: AnnotatedSplit) -> Iterator[str]:
    return (clip.translation for recording in split.recordings for clip in recording.clips)


@dataclass(frozen=True)
class _Difference:
    is_strong: bool
    text: str


def _differing_traits(train: Style, split: Style) -> Iterator[_Difference]:
    for trait in TRAITS:
        train_share, split_share = train.shares[trait], split.shares[trait]
        if (
            _differs_beyond_chance(train_share, split_share)
            and abs(train_share.ratio - split_share.ratio) >= MIN_DIFFERENCE
        ):
            counts = (
                f"{train_share.count} of {train_share.texts} texts of {train.split}, "
                f"{split_share.count} of {split_share.texts} here"
            )
            yield _Difference(_differ_strongly(train_share, split_share), f"{trait}: {counts}")


def _missing_characters(train: Style, split: Style) -> Iterator[_Difference]:
    for first, second, where in ((train, split, "here"), (split, train, f"of {train.split}")):
        by_strength: dict[bool, list[str]] = {True: [], False: []}
        for character, count in first.characters.most_common():
            shares = first.share_of(character), second.share_of(character)
            if count >= MIN_USES and not shares[1].count and _differs_beyond_chance(*shares):
                by_strength[_differ_strongly(*shares)].append(character)
        for is_strong, characters in by_strength.items():
            if characters:
                shown = ", ".join(map(repr, sorted(characters[:MAX_CHARACTERS])))
                more = f" and {len(characters) - MAX_CHARACTERS} more" * (len(characters) > MAX_CHARACTERS)
                yield _Difference(is_strong, f"no text {where} holds {shown}{more}")


def _differs_beyond_chance(first: TraitShare, second: TraitShare) -> bool:
    """Whether two shares differ by more than four standard errors: the clips of a recording are not independent."""
    if min(first.texts, second.texts) < MIN_TEXTS:
        return False
    pooled = (first.count + second.count) / (first.texts + second.texts)
    error = sqrt(pooled * (1 - pooled) * (1 / first.texts + 1 / second.texts))
    return abs(first.ratio - second.ratio) > 4 * error


def _differ_strongly(first: TraitShare, second: TraitShare) -> bool:
    """Whether the shares are nearly all and nearly none, or most and none."""
    lower, higher = sorted((first.ratio, second.ratio))
    return higher - lower >= STRONG_DIFFERENCE or (lower == 0 and higher >= 0.5)
