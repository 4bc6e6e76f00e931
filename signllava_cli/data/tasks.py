"""What a clip is trained on: its translation, or a yes/no question whose answer follows from its annotation.

The four tasks of Sign_LLaVA. A word counts as signed if it is a word of the sentence, in any case. Words of the
vocabulary that are not in the sentence serve as negatives. Positives and negatives are asked about in the same,
case-folded spelling, so that the spelling does not reveal the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.words import contains_phrase, split_compounds, words
from signllava_cli.errors import UserError
from signllava_cli.recipe import TASKS, Task, Tasks, TaskWeights

MAX_TRIES = 20  # random words tried for each negative before the whole vocabulary is searched


@dataclass(frozen=True)
class Instruction:
    """What the user turn asks about a clip, and the right answer.

    `is_reversed`: the frames are shown in reverse order. `answer` is empty where the right answer is unknown.
    """

    task: Task
    text: str
    answer: str = ""
    is_reversed: bool = False


def translation_instruction(tasks: Tasks, reference: str = "") -> Instruction:
    """The instruction that asks for the translation."""
    return Instruction("translation", tasks.translation, reference)


class TaskSampler:
    """Samples the instruction of a clip by the task weights of a split.

    Args:
        vocabulary: the keywords of `split`, case-folded and unique: negatives are sampled from them.

    Raises:
        UserError: a task about words has weight, but the split has no keywords.
    """

    def __init__(self, tasks: Tasks, weights: TaskWeights, vocabulary: Sequence[str], split: str) -> None:
        self.tasks, self.vocabulary = tasks, vocabulary
        task_weights = np.array([getattr(weights, task) for task in TASKS])
        self.probabilities = task_weights / task_weights.sum()
        if not vocabulary and weights.one_word_present + weights.multi_word_present > 0:
            raise UserError(
                f"tasks.one_word_present and multi_word_present ask about keywords, and split {split} has none; "
                "run `signllava prepare keywords` to add them."
            )

    def sample(self, clip: Clip, rng: np.random.Generator) -> Instruction:
        """An instruction for `clip`, a function of the clip and the random numbers alone.

        Where a word task has no word to ask about, neither a keyword of the clip nor a negative, the instruction asks
        for the translation.
        """
        task = TASKS[int(rng.choice(len(TASKS), p=self.probabilities))]
        if task == "is_reversed":
            is_reversed = bool(rng.integers(2))
            return Instruction(task, self.tasks.is_reversed, self._yes_or_no(is_reversed), is_reversed)
        if task == "one_word_present":
            labeled_words = self._sample_words(clip, 1, int(rng.integers(2)), rng)
            if labeled_words:
                ((word, is_present),) = labeled_words
                text = self.tasks.one_word_present.replace("{word}", word)
                return Instruction(task, text, self._yes_or_no(is_present))
        if task == "multi_word_present":
            count = int(rng.integers(2, self.tasks.max_words + 1))
            labeled_words = self._sample_words(clip, count, int(rng.integers(count + 1)), rng)
            if len(labeled_words) > 1:
                word_list = ", ".join(word for word, _ in labeled_words)
                answer = ", ".join(self._yes_or_no(is_present) for _, is_present in labeled_words)
                return Instruction(task, self.tasks.multi_word_present.replace("{words}", word_list), answer)
        return translation_instruction(self.tasks, self._sample_reference(clip, rng))

    def _sample_reference(self, clip: Clip, rng: np.random.Generator) -> str:
        """The translation, or one of its paraphrases."""
        if rng.random() < self.tasks.paraphrases and clip.paraphrases:
            return clip.paraphrases[int(rng.integers(len(clip.paraphrases)))]
        return clip.translation

    def _sample_words(
        self, clip: Clip, count: int, num_positives: int, rng: np.random.Generator
    ) -> list[tuple[str, bool]]:
        """At most `count` words in alphabetical order, each with whether it is signed; about `num_positives` are.

        Where there are too few words of one kind, words of the other kind replace them.
        """
        sentence = words(clip.translation)
        keywords = list(dict.fromkeys(keyword.casefold() for keyword in clip.keywords))
        positives = [keyword for keyword in keywords if contains_phrase(sentence, words(keyword))]
        positives = [positives[index] for index in rng.permutation(len(positives))]
        num_negatives = count - min(num_positives, len(positives))
        negatives = self._sample_negatives(sentence, keywords, num_negatives, rng)
        positives = positives[: count - len(negatives)]
        return sorted([*((word, True) for word in positives), *((word, False) for word in negatives)])

    def _sample_negatives(
        self, sentence: list[str], keywords: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[str]:
        """At most `count` different words of the vocabulary that are certainly not in the sentence.

        Parts of a compound are not certain, nor are keywords of the clip that are not words of it (base forms, say).
        """
        negatives: dict[str, None] = {}
        sentence_parts = split_compounds(sentence)
        for index in self._vocabulary_indices(MAX_TRIES * count, rng):
            if len(negatives) == count:
                break
            candidate = self.vocabulary[index]
            candidate_words = words(candidate)
            if (
                candidate not in keywords
                and not contains_phrase(sentence, candidate_words)
                and not contains_phrase(sentence_parts, split_compounds(candidate_words))
            ):
                negatives[candidate] = None
        return list(negatives)

    def _vocabulary_indices(self, num_tries: int, rng: np.random.Generator) -> Iterator[int]:
        """`num_tries` random indices, then all indices of the vocabulary in random order."""
        if self.vocabulary:
            yield from rng.integers(len(self.vocabulary), size=num_tries)
            yield from rng.permutation(len(self.vocabulary))

    def _yes_or_no(self, is_yes: bool) -> str:
        return self.tasks.yes if is_yes else self.tasks.no
