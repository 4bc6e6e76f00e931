"""Yes/no questions: accuracy, precision, recall and F1 over all items; malformed answers are counted separately."""

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from signllava_cli.evaluation.metrics.base import Scores, TextMetric
from signllava_cli.evaluation.metrics.presets import Preset

# columns of the statistics; MALFORMED_YES: items of malformed answers whose reference is yes
TRUE_YES, FALSE_YES, FALSE_NO, TRUE_NO, MALFORMED, MALFORMED_YES = range(6)
OUTCOMES = {(1, 1): TRUE_YES, (1, 0): FALSE_YES, (0, 1): FALSE_NO, (0, 0): TRUE_NO}  # by (answer, reference)


class YesNo(TextMetric):
    """Answers to yes/no questions, item by item; "yes" is the positive class.

    A hypothesis is malformed if its number of items differs from the reference's, or if an item is neither word. All
    items of such a question count as wrong, those with the reference "yes" as missed; no answer is truncated to fit.

    Args:
        yes, no: the two words; compared case-folded, without a full stop at the end.
    """

    labels: ClassVar = {
        "items": "items",
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "malformed": "malformed %",
    }

    count_keys: ClassVar = frozenset({"items"})

    def __init__(self, preset: Preset | None = None, *, yes: str = "yes", no: str = "no") -> None:
        super().__init__(preset)
        self.yes, self.no = yes.casefold(), no.casefold()

    def extract_statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The numbers of items by outcome: float64 (N, 6), in the order of `TRUE_YES` to `MALFORMED_YES`."""
        statistics = np.zeros((len(hypotheses), MALFORMED_YES + 1))
        for row, hypothesis, reference in zip(statistics, hypotheses, references, strict=True):
            answers, expected = self.parse_answers(hypothesis), self.parse_answers(reference)
            if answers is None or expected is None or len(answers) != len(expected):
                row[MALFORMED] = len(expected or [False])
                row[MALFORMED_YES] = sum(expected or [])
                continue
            for pair in zip(answers, expected, strict=True):
                row[OUTCOMES[pair]] += 1
        return statistics

    def compute_scores(self, sums: np.ndarray) -> Scores:
        """In percent, and the number of items. Precision is 0 if no answer is "yes", recall if no reference is."""
        true_yes, false_yes, false_no, true_no, malformed, malformed_yes = np.moveaxis(sums, -1, 0)
        items = true_yes + false_yes + false_no + true_no + malformed
        answered_yes, expected_yes = true_yes + false_yes, true_yes + false_no + malformed_yes
        return {
            "items": items,
            "accuracy": _compute_percent(true_yes + true_no, items),
            "precision": _compute_percent(true_yes, answered_yes),
            "recall": _compute_percent(true_yes, expected_yes),
            "f1": _compute_percent(2 * true_yes, answered_yes + expected_yes),
            "malformed": _compute_percent(malformed, items),
        }

    def parse_answers(self, text: str) -> list[int] | None:
        """The answers in `text`, 1 for yes and 0 for no; None if one is neither."""
        words = [re.sub(r"[.!。]$", "", part.strip()).casefold() for part in re.split("[,，、]", text)]
        return [int(word == self.yes) for word in words] if set(words) <= {self.yes, self.no} else None

    @property
    def signature(self) -> str:
        """The two words, and how malformed answers count."""
        return f"yes-no|items:{self.yes}/{self.no}|positive:{self.yes}|malformed:wrong"


def _compute_percent(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.where(total > 0, 100 * part / np.where(total > 0, total, 1), 0.0)
