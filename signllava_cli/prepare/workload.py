"""The sequences of a recipe, for an estimate: measured in the index of a split if there is one, or assumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signllava_cli.data.examples import BOUNDARY_VECTORS
from signllava_cli.data.expected_lengths import expected_lengths
from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.split import Split
from signllava_cli.prepare.indexing import open_existing_index
from signllava_cli.recipe import Recipe

# Assumed without a tokenizer: the tokens of all text but the context, of a sentence of context, of the text before
# the streams, and of the answer.
TEXT_TOKENS, SENTENCE_TOKENS, PREFIX_TOKENS, ANSWER_TOKENS = 100, 25, 40, 30
NUM_FRAMES = 200  # of a mean clip, assumed without an index; the longest sequence is assumed to have data.max_seq_len
NUM_CLIPS, NUM_CLIPS_DECODED = 31_000, 2_400  # of a split, assumed without an index: How2Sign's train and test
SAMPLE_SIZE = 200  # answers that are tokenized


@dataclass(frozen=True)
class Workload:
    """The sequences of a split.

    `lengths`: tokens of each clip's sequence, all text included, int64 (clips,); without an index, those of one clip
    of mean and one of greatest length. `num_text_tokens`: of a mean sequence, those of the constant text
    (`prefix_len`) and of the answer (`answer_len`) included. `shares`: name of a projector's input -> its share of
    all embeddings. `is_measured`: whether it comes from an index; `source`: where it comes from, in words.
    """

    num_clips: int
    lengths: np.ndarray
    mean_len: int
    num_text_tokens: int
    prefix_len: int
    answer_len: int
    shares: Mapping[str, float]
    is_measured: bool
    source: str

    @property
    def longest_len(self) -> int:
        """The tokens of the longest sequence."""
        return int(self.lengths.max())

    def embeddings(self, seq_len: int) -> dict[str, int]:
        """The embeddings of each projector in a sequence of `seq_len` tokens."""
        available = max(0, seq_len - self.num_text_tokens - BOUNDARY_VECTORS * len(self.shares))
        return {name: int(share * available) for name, share in self.shares.items()}


def find_workload(
    recipe: Recipe, split: str, prompts: PromptBuilder | None, num_assumed: int = NUM_CLIPS
) -> Workload:
    """The sequences of `split`.

    Args:
        num_assumed: the number of clips, if there is no index.
    """
    prefix_len = len(prompts.before_streams) if prompts else PREFIX_TOKENS
    root = Path(recipe.data.root).expanduser()
    index = open_existing_index(root, split, recipe.streams)
    if index is None:
        longest, num_text_tokens = recipe.data.max_seq_len, _text_tokens(recipe)
        inputs = projector_inputs(recipe.streams)
        counts = {name: each.count_embeddings(-(-NUM_FRAMES // each.config.stride)) for name, each in inputs.items()}
        mean = min(num_text_tokens + sum(counts.values()), longest)
        source = (
            f"assumed: {num_assumed:,} clips of {mean:,} tokens, the longest {longest:,} (there is no index of split "
            f"{split} of {root}; `signllava prepare index` makes one)"
        )
        shares = {name: count / sum(counts.values()) for name, count in counts.items()}
        lengths = np.array([mean, longest])
        num_text_tokens = min(num_text_tokens, mean)
        return Workload(num_assumed, lengths, mean, num_text_tokens, prefix_len, ANSWER_TOKENS, shares, False, source)
    clips = Split(index, split, recipe.streams, missing="skip")
    by_projector = {name: counts[clips.clips.rows] for name, counts in clips.count_embeddings().items()}
    embeddings = np.sum(list(by_projector.values()), axis=0)  # (clips,)
    boundaries = BOUNDARY_VECTORS * len(by_projector)
    if prompts is None:
        lengths = np.minimum(embeddings + boundaries + _text_tokens(recipe), recipe.data.max_seq_len)
        answer_len = ANSWER_TOKENS
    else:
        lengths = expected_lengths(clips, recipe, prompts)
        rows = np.linspace(0, len(clips.clips) - 1, min(SAMPLE_SIZE, len(clips.clips))).astype(np.int64)
        answers = [len(prompts.answer(clips.clips[row].translation)) for row in rows.tolist()]
        answer_len = round(float(np.mean(answers)))
    total = max(1, int(embeddings.sum()))
    return Workload(
        num_clips=len(clips.clips),
        lengths=lengths,
        mean_len=round(float(lengths.mean())),
        num_text_tokens=max(prefix_len + answer_len, round(float((lengths - embeddings - boundaries).mean()))),
        prefix_len=prefix_len,
        answer_len=answer_len,
        shares={name: float(counts.sum() / total) for name, counts in by_projector.items()},
        is_measured=True,
        source=f"from the index of split {split} of {root}",
    )


def _text_tokens(recipe: Recipe) -> int:
    """The assumed tokens of all text of a sequence, with its whole context."""
    return TEXT_TOKENS + SENTENCE_TOKENS * (recipe.context.window + recipe.context.prelude)
