"""Estimates the sequence length of every clip, by which clips are grouped into batches of bounded size.

Only a sample of the sentences is tokenized and no frame is read, so a million clips take a second.
"""

import numpy as np

from signllava_cli.data.examples import BOUNDARY_VECTORS
from signllava_cli.data.index import Index
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.split import Split
from signllava_cli.recipe import Recipe

SAMPLE_SIZE = 1000  # sentences of a split that are tokenized to estimate the tokens per byte


def expected_lengths(split: Split, recipe: Recipe, prompts: PromptBuilder) -> np.ndarray:
    """The expected sequence length of each clip of `split.clips` in a training batch, in tokens, int64 (clips,).

    Embeddings of frames, boundary vectors and the fixed text of the longest question are counted exactly. The tokens
    of the answer and of the context (all the gold context that the recipe allows) are estimated from their bytes, by
    the tokens per byte of a sample of the split. What is sampled for one training example (a shorter context, a
    paraphrase, the answer to another task) is not known here, so single sequences are shorter, or some tokens longer.
    """
    embeddings = sum(split.count_embeddings().values(), np.zeros(len(split.index), np.int64))
    questions = [getattr(recipe.tasks, task) for task, weight in vars(recipe.tasks.train).items() if weight]
    question_tokens = max(_prompt_tokens(prompts, [], question) for question in questions)
    context_bytes, sentences = context_sizes(split.index, recipe.context.window, recipe.context.prelude)
    line_tokens = np.where(sentences, sentences - 1 + _heading_tokens(prompts), 0)  # a line break is a token
    text_tokens = (split.index.text_bytes + context_bytes) * _tokens_per_byte(split.index, prompts)
    lengths = embeddings + BOUNDARY_VECTORS * len(split.inputs) + question_tokens + line_tokens + text_tokens
    max_len = recipe.data.max_seq_len - 1  # the last token of the answer is no input
    return np.minimum(np.ceil(lengths).astype(np.int64), max_len)[split.clips.rows]


def context_sizes(index: Index, window: int, prelude: int) -> tuple[np.ndarray, np.ndarray]:
    """The bytes and the number of each clip's context sentences by `context_indices`, both int64 (clips,)."""
    rows = np.arange(len(index))
    first = rows - index.positions
    prelude_end = np.minimum(first + prelude, rows)
    window_start = np.maximum(rows - window, prelude_end)
    offsets = np.concatenate([[0], np.cumsum(index.text_bytes)])  # (clips + 1,): bytes of all sentences above a row
    context_bytes = offsets[prelude_end] - offsets[first] + offsets[rows] - offsets[window_start]
    return context_bytes, prelude_end - first + rows - window_start


def _tokens_per_byte(index: Index, prompts: PromptBuilder) -> float:
    """The tokens per byte of sentences that are evenly spaced over the index, the same ones on every call."""
    rows = np.linspace(0, len(index) - 1, min(SAMPLE_SIZE, len(index))).astype(np.int64)
    tokens = sum(_text_tokens(prompts, index.translation(row)) for row in rows.tolist())
    return float(tokens / index.text_bytes[rows].sum())


def _heading_tokens(prompts: PromptBuilder) -> int:
    """The tokens that a context adds to the prompt beside its first sentence: the heading and line breaks."""
    sentence = prompts.tasks.translation  # any text
    return _prompt_tokens(prompts, [sentence]) - _prompt_tokens(prompts, []) - _text_tokens(prompts, sentence)


def _prompt_tokens(prompts: PromptBuilder, context: list[str], question: str | None = None) -> int:
    prompt = prompts.prompt(context, question)
    return len(prompt.before) + len(prompt.after)


def _text_tokens(prompts: PromptBuilder, text: str) -> int:
    return len(prompts.answer(text)) - 1  # without the end-of-turn token
