"""Which frames were read for which word: the attention of an answer over the streams, the context and other text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from signllava_cli.api.inputs import InvalidInput, kept_frames
from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import Example
from signllava_cli.data.feature_stream import subsample
from signllava_cli.data.projector_inputs import ProjectorInput
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.words import printed_words
from signllava_cli.errors import require_extra
from signllava_cli.model.attention_weights import answer_attention
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StreamAttention:
    """The attention of W words on one stream, or on joined streams.

    `weights`: float32 (W, E), on the embedding of each frame, or of several frames that the projector shortens.
    `spans`: int64 (E, 2), the frames of the clip for which each embedding stands, from the first up to the second;
    together they cover the clip. A convolution reads some frames more on both sides. `boundary`: float32 (W,), on the
    two boundary vectors. Frames are those of the features that were given; of joined streams, of the first of them.
    """

    weights: np.ndarray
    spans: np.ndarray
    boundary: np.ndarray

    @property
    def num_frames(self) -> int:
        """T, the number of frames of the clip."""
        return int(self.spans[-1, 1])

    @property
    def frames(self) -> np.ndarray:
        """The weights of single frames, float32 (W, T); frames of one embedding have equal parts of its weight."""
        sizes = np.diff(self.spans, axis=1)[:, 0]
        return np.repeat(self.weights / sizes, sizes, axis=1)

    def strongest_span(self, word: int) -> tuple[int, int]:
        """The frames, from the first up to the second, of the embedding on which a word has its highest weight."""
        first, end = self.spans[int(self.weights[word].argmax())]
        return int(first), int(end)


@dataclass(frozen=True)
class AnswerAttention:
    """The attention of the W words of an answer: the mean over their tokens, over layers and over heads.

    `words`: as printed, with punctuation. `tokens`: the tokens of each word, as text. `streams`: by the name of a
    stream, or of joined streams. `context`: float32 (W,), on the context sentences and their heading. `answer`: on
    the words before this one. `instructions`: on all other text of the prompt; LLMs tend to give most of their
    attention to its first token. For each word, all of them and the streams sum to 1, less the weight of attention
    sinks beside the positions, which some LLMs have.
    """

    words: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    streams: dict[str, StreamAttention]
    context: np.ndarray
    answer: np.ndarray
    instructions: np.ndarray

    @property
    def shares(self) -> dict[str, np.ndarray]:
        """What the words attend to -> the share of their attention, float32 (W,).

        The share of a stream is that of its embeddings and boundary vectors.
        """
        on_streams = {
            f"stream {name}": stream.weights.sum(1) + stream.boundary for name, stream in self.streams.items()
        }
        return {**on_streams, "context": self.context, "answer": self.answer, "instructions": self.instructions}

    def plot(self) -> "Figure":
        """A heat map of words and frames for each stream, and the shares of each word.

        Raises:
            UserError: the extra `plot` is not installed.
        """
        require_extra("plot", "a plot of attention", "matplotlib")
        from signllava_cli.api.attention_chart import attention_chart

        return attention_chart(self.words, self.streams, self.shares)


@dataclass(frozen=True)
class AnswerWords:
    """The words of an answer, and the indices of the tokens of each."""

    words: tuple[str, ...]
    token_indices: tuple[tuple[int, ...], ...]


def split_answer(prompts: PromptBuilder, answer: Sequence[int]) -> AnswerWords:
    """The words of the token ids `answer`. Tokens after the last word, such as the end of turn, belong to none.

    A token with the end of a word and the start of the next one belongs to the first.
    """
    text = _decode(prompts, answer)
    starts = {start for start, _ in printed_words(text)}
    word_starts: list[int] = []
    groups: list[list[int]] = []
    pending: list[int] = []  # tokens without a printed character: spaces, and the first bytes of a character
    end = 0
    for index in range(len(answer)):
        start, end = end, max(end, _count_common(_decode(prompts, answer[: index + 1]), text))
        pending.append(index)
        printed = [place for place in range(start, end) if not text[place].isspace()]
        if not printed:
            continue
        if printed[0] in starts or not groups:
            word_starts.append(printed[0])
            groups.append([])
        groups[-1] += pending
        pending = []
    words = tuple(text[start:end].strip() for start, end in pairwise([*word_starts, len(text)]))
    return AnswerWords(words, tuple(map(tuple, groups)))


def _decode(prompts: PromptBuilder, ids: Sequence[int]) -> str:
    return str(prompts.tokenizer.decode(list(ids), skip_special_tokens=True))


def frame_spans(
    lengths: Mapping[str, int], streams: Mapping[str, Stream], projector_input: ProjectorInput, num_read: int
) -> np.ndarray:
    """The frames of a clip for which each embedding of a projector stands, int64 (E, 2), as in `StreamAttention`.

    Args:
        lengths: the number of frames of each stream of the clip, as given.
        streams: the section `streams` of the recipe.
        num_read: of the frames that the projector reads; fewer than are kept if the clip was truncated.
    """
    name = next(name for name in projector_input.streams if name in lengths)
    kept = kept_frames(lengths, streams)[name]
    read = kept if num_read == len(kept) else subsample(kept, num_read)
    firsts = read[:: projector_input.frames_per_embedding]
    return np.stack([np.array([0, *firsts[1:]]), np.array([*firsts[1:], lengths[name]])], axis=1)


def read_attention(
    bundle: ModelBundle,
    streams_config: Mapping[str, Stream],
    example: Example,
    spans: Mapping[str, np.ndarray],
    question: str,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
) -> AnswerAttention:
    """The attention of the words of an example's answer; see `SignLlava.attention`.

    Args:
        streams_config: the section `streams` of the recipe.
        example: with its answer.
        spans: of each projector's input, as by `frame_spans`.
        question: the last line of the user's turn.

    Raises:
        InvalidInput: the answer has no word.
        UserError: the LLM lacks a layer or head, or its class does not let its attention be read.
    """
    words = split_answer(bundle.prompts, example.answer)
    if not words.words:
        raise InvalidInput("text: expected at least one word.")
    batch = collate_examples([example], streams_config, bundle.pad_id, "right").to(bundle.device)
    weights = answer_attention(bundle.model, batch, layers, heads).numpy()  # (A, L)
    by_word = np.stack([weights[list(indices)].mean(0) for indices in words.token_indices])  # (W, L)
    answer_start = by_word.shape[1] - len(example.answer[:-1])
    after_start = answer_start - len(example.prompt.after)
    context_end = after_start + _count_context_tokens(example, bundle.prompts, question)
    streams = {}
    for name in example.streams:
        stream = batch.streams[name]
        boundary = [int(stream.start_indices[0]), int(stream.end_indices[0])]
        on_embeddings = by_word[:, stream.embedding_indices.cpu().numpy()]
        streams[name] = StreamAttention(on_embeddings, spans[name], by_word[:, boundary].sum(1))
    before_streams = by_word[:, : len(example.prompt.before)].sum(1)
    return AnswerAttention(
        words=words.words,
        tokens=tuple(
            tuple(_decode(bundle.prompts, [example.answer[index]]) for index in indices)
            for indices in words.token_indices
        ),
        streams=streams,
        context=by_word[:, after_start:context_end].sum(1),
        answer=by_word[:, answer_start:].sum(1),
        instructions=before_streams + by_word[:, context_end:answer_start].sum(1),
    )


def _count_context_tokens(example: Example, prompts: PromptBuilder, question: str) -> int:
    """The tokens of the context and its heading, at the start of `prompt.after`: what a prompt without it lacks."""
    without, after = prompts.prompt([], question).after, example.prompt.after
    return len(after) - _count_common(without[::-1], after[::-1]) if example.context else 0


def _count_common(first: Sequence[object], second: Sequence[object]) -> int:
    """The number of items with which both sequences begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))
