"""What a clip is trained on: its translation, or a yes/no question whose answer its annotation gives.

The four tasks of Sign_LLaVA. A word is signed when it is a word of the sentence, whatever its case; what
is no word of it may be asked about as a negative. Positives and negatives are asked about in the same spelling
(case-folded), so that the spelling does not tell the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.words import contains_phrase, split_compounds, words
from signllava_cli.errors import UserError
from signllava_cli.recipe import Tasks, TaskWeights

Task = Literal["translation", "one_word_present", "multi_word_present", "is_reversed"]
MAX_TRIES = 20  # random words tried for a negative before all of them are gone through


@dataclass(frozen=True)
class Instruction:
    """What is asked of a clip and what the right answer is; `backwards`: its frames are shown in reverse."""

    task: Task
    text: str
    answer: str
    is_reversed: bool = False


class TaskSampler:
    """Draws the question of a clip, by the weights of its split.

    Args:
        vocabulary: the keywords of `split`, case-folded, each once: the words that negatives are drawn from.

    Raises:
        UserError: a task about words has weight, but the split has no keywords.
    """

    def __init__(self, tasks: Tasks, weights: TaskWeights, vocabulary: Sequence[str], split: str) -> None:
        self.tasks, self.vocabulary = tasks, vocabulary
        self.names: tuple[Task, ...] = ("translation", "one_word_present", "multi_word_present", "is_reversed")
        shares = np.array([getattr(weights, name) for name in self.names])
        self.shares = shares / shares.sum()
        if not vocabulary and weights.one_word_present + weights.multi_word_present > 0:
            raise UserError(
                f"tasks.one_word_present and multi_word_present ask about keywords, and split {split} has none; "
                "`signllava prepare keywords` fills them in."
            )

    def sample(self, clip: Clip, rng: np.random.Generator) -> Instruction:
        """A question about `clip`, a function of the clip and the random numbers alone.

        A clip about which no word can be asked, neither one of its keywords nor one that it lacks, is translated.
        """
        task = self.names[int(rng.choice(len(self.names), p=self.shares))]
        if task == "is_reversed":
            is_reversed = bool(rng.integers(2))
            return Instruction(task, self.tasks.is_reversed, self._yes_or_no(is_reversed), is_reversed)
        if task == "one_word_present":
            asked = self._asked(clip, 1, int(rng.integers(2)), rng)
            if asked:
                ((word, present),) = asked
                return Instruction(
                    task, self.tasks.one_word_present.replace("{word}", word), self._yes_or_no(present)
                )
        if task == "multi_word_present":
            count = int(rng.integers(2, self.tasks.max_words + 1))
            asked = self._asked(clip, count, int(rng.integers(count + 1)), rng)
            if len(asked) > 1:
                listed = ", ".join(word for word, _ in asked)
                answer = ", ".join(self._yes_or_no(present) for _, present in asked)
                return Instruction(task, self.tasks.multi_word_present.replace("{words}", listed), answer)
        return Instruction("translation", self.tasks.translation, self._wording(clip, rng))

    def _wording(self, clip: Clip, rng: np.random.Generator) -> str:
        """The translation, or one of its paraphrases."""
        if rng.random() < self.tasks.paraphrases and clip.paraphrases:
            return clip.paraphrases[int(rng.integers(len(clip.paraphrases)))]
        return clip.translation

    def _asked(self, clip: Clip, count: int, positives: int, rng: np.random.Generator) -> list[tuple[str, bool]]:
        """`count` words in alphabetical order, each with whether it is signed; about `positives` of them are.

        Where one kind runs out the other fills in; where both do, there are fewer.
        """
        sentence = words(clip.translation)
        keywords = list(dict.fromkeys(keyword.casefold() for keyword in clip.keywords))
        signed = [keyword for keyword in keywords if contains_phrase(sentence, words(keyword))]
        signed = [signed[index] for index in rng.permutation(len(signed))]
        unsigned = self._unsigned(sentence, keywords, count - min(positives, len(signed)), rng)
        chosen = [*((word, True) for word in signed[: count - len(unsigned)]), *((word, False) for word in unsigned)]
        return sorted(chosen)

    def _unsigned(
        self, sentence: list[str], keywords: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[str]:
        """At most `count` different words of the vocabulary that nobody could find in the sentence.

        A part of a compound is not denied, nor is a keyword of the clip that is no word of it (a base form, say).
        """
        found: dict[str, None] = {}
        pieces = split_compounds(sentence)
        for index in self._places(MAX_TRIES * count, rng):
            if len(found) == count:
                break
            word = self.vocabulary[index]
            asked = words(word)
            if (
                word not in keywords
                and not contains_phrase(sentence, asked)
                and not contains_phrase(pieces, split_compounds(asked))
            ):
                found[word] = None
        return list(found)

    def _places(self, tries: int, rng: np.random.Generator) -> Iterator[int]:
        """Places in the vocabulary: `tries` at random, and where these do not do, all of them."""
        if self.vocabulary:
            yield from rng.integers(len(self.vocabulary), size=tries)
            yield from rng.permutation(len(self.vocabulary))

    def _yes_or_no(self, present: bool) -> str:
        return self.tasks.yes if present else self.tasks.no
