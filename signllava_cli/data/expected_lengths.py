"""How long each clip's sequence is expected to be: what token-budget batches are planned by.

Nothing is tokenized but a sample and no frame is read, so that a million clips take a second.
"""

import numpy as np

from signllava_cli.data.examples import BOUNDARY_VECTORS
from signllava_cli.data.index import Index
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.split import Split
from signllava_cli.recipe import Recipe

SAMPLE = 1000  # sentences of a split that are tokenized to learn how many tokens a byte makes


def expected_lengths(split: Split, recipe: Recipe, prompts: PromptBuilder) -> np.ndarray:
    """The positions that each clip of `split.clips` is expected to take in a training batch, int64 (clips,).

    Frames, boundaries and the fixed text of the longest question are counted as they are. Sentences, the answer and
    all the gold context that the recipe could show, are taken to make as many tokens a byte as a sample of the split
    does. What one position of the training sequence draws (a shorter context, a paraphrase, the answer to another
    task) is not known here, so single sequences turn out shorter, or some tokens longer.
    """
    frames = sum((stream.kept_frames() for stream in split.streams), np.zeros(len(split.index), np.int64))
    questions = [getattr(recipe.tasks, task) for task, weight in vars(recipe.tasks.train).items() if weight]
    asked = max(_prompt_tokens(prompts, [], question) for question in questions)
    shown, sentences = context_sizes(split.index, recipe.context.window, recipe.context.prelude)
    lines = np.where(sentences, sentences - 1 + _heading_tokens(prompts), 0)  # a line break is a token
    texts = (split.index.text_bytes + shown) * _tokens_per_byte(split.index, prompts)
    positions = frames + BOUNDARY_VECTORS * len(split.streams) + asked + lines + texts
    longest = recipe.data.max_seq_len - 1  # the last token of the answer is predicted and takes none
    return np.minimum(np.ceil(positions).astype(np.int64), longest)[split.clips.rows]


def context_sizes(index: Index, window: int, prelude: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and number of the sentences that each clip sees by the rule of `context_positions`, int64 (clips,)."""
    rows = np.arange(len(index))
    first = rows - index.positions
    prelude_end = np.minimum(first + prelude, rows)
    window_begin = np.maximum(rows - window, prelude_end)
    before = np.concatenate([[0], np.cumsum(index.text_bytes)])  # bytes of all sentences above a row
    shown = before[prelude_end] - before[first] + before[rows] - before[window_begin]
    return shown, prelude_end - first + rows - window_begin


def _tokens_per_byte(index: Index, prompts: PromptBuilder) -> float:
    """How many tokens a byte makes in sentences evenly spread over the index: the same ones each time."""
    rows = np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(np.int64)
    tokens = sum(_text_tokens(prompts, index.translation(row)) for row in rows.tolist())
    return float(tokens / index.text_bytes[rows].sum())


def _heading_tokens(prompts: PromptBuilder) -> int:
    """The tokens that the first sentence of a context brings with it."""
    sentence = prompts.tasks.translation  # any text
    return _prompt_tokens(prompts, [sentence]) - _prompt_tokens(prompts, []) - _text_tokens(prompts, sentence)


def _prompt_tokens(prompts: PromptBuilder, context: list[str], question: str | None = None) -> int:
    prompt = prompts.prompt(context, question)
    return len(prompt.before) + len(prompt.after)


def _text_tokens(prompts: PromptBuilder, text: str) -> int:
    return len(prompts.answer(text)) - 1  # without the end of the turn
