"""Clips made examples with their labels: what training and the dev loss share."""

from collections.abc import Sequence

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import TaskSampler
from signllava_cli.recipe import Recipe, TaskWeights

Seen = tuple[list[str], int]


class LabeledClips:
    """The clips of a split with a question by the weights of the split, and the right answer."""

    def __init__(self, recipe: Recipe, split: Split, builder: ExampleBuilder, weights: TaskWeights) -> None:
        self.split, self.builder, self.context = split, builder, recipe.context
        self.tasks = TaskSampler(recipe.tasks, weights, split.index.vocabulary, split.name)

    def examples(
        self, clips: Sequence[Clip], rngs: Sequence[np.random.Generator], contexts: Sequence[Seen] | None = None
    ) -> list[Example]:
        """The example of each of `clips`: its question is a function of its own random numbers in `draws`.

        `contexts`: the sentences that each sees, and how many are of its prelude; by default all the gold ones.
        """
        seen = [self._gold(clip) for clip in clips] if contexts is None else contexts
        return [self._example(*each) for each in zip(clips, self.split.read_all(clips), rngs, seen, strict=True)]

    def prompts_only(self, clips: Sequence[Clip], room: int) -> list[Example]:
        """Each of `clips` as generation meets it: asked for its translation, with `room` positions kept free."""
        return [
            self.builder.build(clip, frames, self._gold(clip)[0], answer=None, room=room)
            for clip, frames in zip(clips, self.split.read_all(clips), strict=True)
        ]

    def _example(self, clip: Clip, frames: dict[str, np.ndarray], rng: np.random.Generator, seen: Seen) -> Example:
        question = self.tasks.sample(clip, rng)
        if question.is_reversed:
            frames = {name: its[::-1] for name, its in frames.items()}
        sentences, prelude = seen
        return self.builder.build(clip, frames, sentences, question.answer, question.text, prelude=prelude)

    def _gold(self, clip: Clip) -> Seen:
        window, prelude = self.context.window, self.context.prelude
        return self.split.gold_context(clip, window, prelude), min(prelude, clip.position)
