"""What is asked of each clip in generation, and the right answer."""

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import Instruction, TaskSampler
from signllava_cli.recipe import Recipe, TaskWeights

FREE_QUESTION = "question"  # the task of a person's own question, which has no reference
NO_KEYWORD = "a word to ask about"  # what a clip misses that a task has no question for


class Instructions:
    """The question of each clip by `recipe.generate`, a function of its seed and the clip.

    Raises:
        UserError: the task asks about keywords, and the split has none.
    """

    def __init__(self, recipe: Recipe, split: Split) -> None:
        self.task = FREE_QUESTION if recipe.generate.task_prompt else recipe.generate.task
        self._own, self._translation = recipe.generate.task_prompt, recipe.tasks.translation
        self._seed = recipe.generate.seed
        if self.task not in (FREE_QUESTION, "translation"):
            weights = TaskWeights(**{"translation": 0.0, self.task: 1.0})
            self._tasks = TaskSampler(recipe.tasks, weights, split.index.vocabulary, split.name)

    def of(self, clip: Clip) -> Instruction | None:
        """What is asked of `clip`, or None where the task has nothing to ask: no word to ask about."""
        if self._own:
            return Instruction("translation", self._own, "")
        if self.task == "translation":
            return Instruction("translation", self._translation, clip.translation)
        question = self._tasks.sample(clip, np.random.default_rng([self._seed, clip.row]))
        return question if question.task == self.task else None
