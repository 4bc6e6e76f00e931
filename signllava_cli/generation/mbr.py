"""Minimum Bayes risk: of several hypotheses, the one that the others agree with most."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF


def rank_by_agreement(texts: Sequence[str], utility: str) -> list[int]:
    """The places of `texts`, the one of the highest mean utility against all others first.

    Eikema & Aziz 2020 (arXiv:2005.10283): samples stand for the model's distribution, so the mean over them is the
    expected utility. A text that was drawn twice counts twice.

    Args:
        utility: `chrf` (chrF2) or `bleu` (sentence BLEU-4, effective order), both sacreBLEU's.
    """
    metric = CHRF() if utility == "chrf" else BLEU(effective_order=True)
    distinct = list(dict.fromkeys(texts))
    counts = [texts.count(text) for text in distinct]
    expected = {
        text: sum(
            count * metric.sentence_score(text, [other]).score for other, count in zip(distinct, counts, strict=True)
        )
        for text in distinct
    }
    return sorted(range(len(texts)), key=lambda index: -expected[texts[index]])
