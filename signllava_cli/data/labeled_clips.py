"""The clips of a split as examples with answers: what training and the dev loss share."""

from collections.abc import Sequence

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import TaskSampler, translation_instruction
from signllava_cli.recipe import Recipe, TaskWeights

ClipContext = tuple[list[str], int]  # sentences in signing order, and how many of them belong to the prelude


class LabeledClips:
    """Builds examples of the clips of a split, with instructions sampled by `weights`."""

    def __init__(self, recipe: Recipe, split: Split, builder: ExampleBuilder, weights: TaskWeights) -> None:
        self.split, self.builder, self.context = split, builder, recipe.context
        self.sampler = TaskSampler(recipe.tasks, weights, split.index.vocabulary, split.name)

    def examples(
        self,
        clips: Sequence[Clip],
        rngs: Sequence[np.random.Generator],
        contexts: Sequence[ClipContext] | None = None,
    ) -> list[Example]:
        """The examples of `clips` with their answers; each clip's instruction is a function of its own rng.

        Args:
            contexts: by default the whole gold context of each clip.
        """
        contexts = [self._gold_context(clip) for clip in clips] if contexts is None else contexts
        return [
            self.builder.build(clip.id, frames, self.sampler.sample(clip, rng), sentences, prelude)
            for clip, frames, rng, (sentences, prelude) in zip(
                clips, self.split.read_all(clips), rngs, contexts, strict=True
            )
        ]

    def prompts_only(self, clips: Sequence[Clip], reserve: int) -> list[Example]:
        """The examples of `clips` without answers, as generation builds them: gold context, task translation.

        Args:
            reserve: tokens left free for the hypothesis.
        """
        instruction = translation_instruction(self.builder.prompts.tasks)
        return [
            self.builder.build(
                clip.id, frames, instruction, self._gold_context(clip)[0], reserve=reserve, with_answer=False
            )
            for clip, frames in zip(clips, self.split.read_all(clips), strict=True)
        ]

    def _gold_context(self, clip: Clip) -> ClipContext:
        window, prelude = self.context.window, self.context.prelude
        return self.split.gold_context(clip, window, prelude), min(prelude, clip.position)
