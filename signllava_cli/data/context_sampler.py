"""What a training example sees of the sentences before it, beyond all of their references.

A model that only ever saw references learns to trust them, and its own hypotheses are worse. So an example may see an
earlier model's hypotheses instead, fewer sentences, or none.
"""

from collections.abc import Mapping

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.index import Index
from signllava_cli.recipe import Context


class ContextSampler:
    """Draws the context of a clip, a function of the clip and the random numbers alone.

    Args:
        hypotheses: clip id -> hypothesis, of every clip in `index`, where the settings ask for predicted context.
    """

    def __init__(self, config: Context, index: Index, hypotheses: Mapping[str, str]) -> None:
        self.config, self.index, self.hypotheses = config, index, hypotheses

    def sample(self, clip: Clip, rng: np.random.Generator) -> tuple[list[str], int]:
        """The sentences that `clip` sees, in signing order, and how many of them are of its prelude."""
        config = self.config
        is_bare, share = rng.random() < config.dropout, rng.random()
        window = _between(config.min_window, config.window, rng)
        prelude = _between(config.min_prelude, config.prelude, rng)
        positions = [] if is_bare else context_indices(clip.position, window, prelude)
        kept = rng.random(len(positions)) >= config.sentence_dropout
        is_predicted = config.source.startswith("predicted:") or (
            config.source.startswith("mixed:") and share < config.predicted_share
        )
        seen = [
            (position, text)
            for position, is_kept in zip(positions, kept, strict=True)
            if is_kept and (text := self._sentence(clip.row - clip.position + position, is_predicted))
        ]
        return [text for _, text in seen], sum(position < prelude for position, _ in seen)

    def _sentence(self, row: int, is_predicted: bool) -> str:
        """The sentence of the clip in `row`; an empty hypothesis, as of a clip without features, leaves none."""
        return self.hypotheses[self.index.id(row)] if is_predicted else self.index.translation(row)


def _between(least: int | None, most: int, rng: np.random.Generator) -> int:
    return most if least is None else int(rng.integers(least, most + 1))
