"""Samples the context of training examples.

A model that is trained with gold context only relies on it too much, since in generation the context consists of its
own hypotheses, which are worse. So an example may have the hypotheses of an earlier model, fewer sentences, or none.
"""

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.index import Index
from signllava_cli.data.sentences import Sentences
from signllava_cli.recipe import Context


class ContextSampler:
    """Samples the context of a clip. It depends on the clip and the random numbers alone.

    Args:
        config: the section `context` of the recipe.
        hypotheses: of every clip in `index`, if `config.source` is `predicted` or `mixed`.
    """

    def __init__(self, config: Context, index: Index, hypotheses: Sentences | None) -> None:
        self.config, self.index, self.hypotheses = config, index, hypotheses

    def sample(self, clip: Clip, rng: np.random.Generator) -> tuple[list[str], int]:
        """The context sentences of `clip`, in signing order, and how many of them are of the prelude."""
        config = self.config
        is_dropped, mixing_value = rng.random() < config.dropout, rng.random()
        window = _sample_size(config.min_window, config.window, rng)
        prelude = _sample_size(config.min_prelude, config.prelude, rng)
        positions = [] if is_dropped else context_indices(clip.position, window, prelude)
        is_kept = rng.random(len(positions)) >= config.sentence_dropout
        is_predicted = config.source.startswith("predicted:") or (
            config.source.startswith("mixed:") and mixing_value < config.predicted_share
        )
        sentences = [
            (position, text)
            for position, keep in zip(positions, is_kept, strict=True)
            if keep and (text := self._sentence(clip.row - clip.position + position, is_predicted))
        ]
        return [text for _, text in sentences], sum(position < prelude for position, _ in sentences)

    def _sentence(self, row: int, is_predicted: bool) -> str:
        """The hypothesis or reference of the clip in `row`; a clip without features has an empty hypothesis."""
        if not is_predicted:
            return self.index.translation(row)
        assert self.hypotheses is not None
        return self.hypotheses[row]


def _sample_size(minimum: int | None, maximum: int, rng: np.random.Generator) -> int:
    """`maximum` if there is no minimum, else a number from `minimum` to `maximum`, uniformly."""
    return maximum if minimum is None else int(rng.integers(minimum, maximum + 1))
