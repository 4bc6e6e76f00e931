"""Yes/no questions: accuracy, precision, recall and F1 over the items asked, an answer that is none counted apart."""

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from signllava_cli.evaluation.metrics.base import Scores, TextMetric

RIGHT_YES, WRONG_YES, WRONG_NO, RIGHT_NO, MALFORMED, MALFORMED_YES = range(6)


class YesNo(TextMetric):
    """Answers to yes/no questions, item by item; "yes" is the positive class.

    A hypothesis with another number of items than the reference, or with an item that is neither word, is malformed:
    all items of its question count as wrong, a "yes" among them as missed, and nothing is cut to fit.

    Args:
        yes, no: the two words; compared case-folded, a full stop at the end aside.
    """

    labels: ClassVar = {
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "malformed": "malformed %",
        "items": "items",
    }

    numbers: ClassVar = frozenset({"items"})

    def __init__(self, yes: str = "yes", no: str = "no") -> None:
        super().__init__()
        self.yes, self.no = yes.casefold(), no.casefold()

    def counts(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Right and wrong answers of both kinds, items of malformed answers, and those of them that were "yes"."""
        counted = np.zeros((len(hypotheses), MALFORMED_YES + 1))
        for row, hypothesis, reference in zip(counted, hypotheses, references, strict=True):
            said, meant = self.items(hypothesis), self.items(reference)
            if said is None or meant is None or len(said) != len(meant):
                row[MALFORMED] = len(meant or [False])
                row[MALFORMED_YES] = sum(meant or [])
                continue
            for ours, theirs in zip(said, meant, strict=True):
                row[{(1, 1): RIGHT_YES, (1, 0): WRONG_YES, (0, 1): WRONG_NO, (0, 0): RIGHT_NO}[ours, theirs]] += 1
        return counted

    def scores(self, sums: np.ndarray) -> Scores:
        """In percent, and the number of items; precision without a "yes", and recall without one to find, are 0."""
        right_yes, wrong_yes, wrong_no, right_no, malformed, malformed_yes = np.moveaxis(sums, -1, 0)
        items = right_yes + wrong_yes + wrong_no + right_no + malformed
        said, meant = right_yes + wrong_yes, right_yes + wrong_no + malformed_yes
        return {
            "accuracy": _share(right_yes + right_no, items),
            "precision": _share(right_yes, said),
            "recall": _share(right_yes, meant),
            "f1": _share(2 * right_yes, said + meant),
            "malformed": _share(malformed, items),
            "items": items,
        }

    def items(self, text: str) -> list[int] | None:
        """The answers in `text`, 1 for yes and 0 for no, or None where it is something else."""
        words = [re.sub(r"[.!。]$", "", part.strip()).casefold() for part in re.split("[,，、]", text)]
        return [int(word == self.yes) for word in words] if set(words) <= {self.yes, self.no} else None

    @property
    def signature(self) -> str:
        """What counts."""
        return f"yes-no|items:{self.yes}/{self.no}|positive:{self.yes}|malformed:wrong"


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, 100 * part / np.where(whole > 0, whole, 1), 0.0)
