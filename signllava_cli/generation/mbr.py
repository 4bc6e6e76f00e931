"""Minimum Bayes risk: of several hypotheses, the one with the highest mean similarity to the others."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF


def rank_by_agreement(texts: Sequence[str], utility: str) -> list[int]:
    """The indices of `texts` by their mean utility against all texts, highest first.

    Eikema & Aziz 2020 (arXiv:2005.10283): samples represent the model's distribution, so the mean over them estimates
    the expected utility. A text that was sampled twice counts twice.

    Args:
        utility: `chrf` (chrF2) or `bleu` (sentence BLEU-4 with effective order), both of sacreBLEU.
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
