"""Clips made examples with their labels: what training and the dev loss share."""

from collections.abc import Sequence

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import TaskSampler
from signllava_cli.recipe import Recipe, TaskWeights


class LabelledClips:
    """The clips of a split with gold context, a question by the weights of the split, and the right answer."""

    def __init__(self, recipe: Recipe, split: Split, builder: ExampleBuilder, weights: TaskWeights) -> None:
        self.split, self.builder, self.context = split, builder, recipe.context
        self.tasks = TaskSampler(recipe.tasks, weights, split.index.vocabulary, split.name)

    def examples(
        self, clips: Sequence[Clip], draws: Sequence[np.random.Generator], with_context: Sequence[bool]
    ) -> list[Example]:
        """The example of each of `clips`: its question is a function of its own random numbers in `draws`."""
        return [
            self._example(*each) for each in zip(clips, self.split.read_all(clips), draws, with_context, strict=True)
        ]

    def _example(
        self, clip: Clip, frames: dict[str, np.ndarray], draw: np.random.Generator, with_context: bool
    ) -> Example:
        question = self.tasks.draw(clip, draw)
        if question.backwards:
            frames = {name: its[::-1] for name, its in frames.items()}
        window, prelude = (self.context.window, self.context.prelude) if with_context else (0, 0)
        context = self.split.gold_context(clip, window, prelude)
        return self.builder.build(clip, frames, context, question.answer, question.text)
