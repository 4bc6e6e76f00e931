"""The instruction of each clip in generation, with the right answer."""

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import Instruction, TaskSampler, translation_instruction
from signllava_cli.recipe import Recipe, TaskWeights

FREE_QUESTION = "question"  # the task of the user's own question, which has no reference
NO_KEYWORD = "a word to ask about"  # what a clip lacks for which a task has no question


class Instructions:
    """The instruction of each clip by `recipe.generate`, a function of its seed and the clip.

    Raises:
        UserError: the task asks about keywords, and the split has none.
    """

    def __init__(self, recipe: Recipe, split: Split) -> None:
        self.task = FREE_QUESTION if recipe.generate.task_prompt else recipe.generate.task
        self._task_prompt, self._tasks, self._seed = recipe.generate.task_prompt, recipe.tasks, recipe.generate.seed
        if self.task not in (FREE_QUESTION, "translation"):
            weights = TaskWeights(**{"translation": 0.0, self.task: 1.0})
            self._sampler = TaskSampler(recipe.tasks, weights, split.index.vocabulary, split.name)

    def for_clip(self, clip: Clip) -> Instruction | None:
        """The instruction of `clip`, or None where the task has no word to ask about."""
        if self._task_prompt:
            return Instruction("translation", self._task_prompt)
        if self.task == "translation":
            return translation_instruction(self._tasks, clip.translation)
        instruction = self._sampler.sample(clip, np.random.default_rng([self._seed, clip.row]))
        return instruction if instruction.task == self.task else None
