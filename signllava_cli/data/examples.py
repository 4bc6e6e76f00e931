"""One clip as model input: its frames, its prompt and its answer, truncated to the token budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.feature_stream import subsample
from signllava_cli.data.prompts import Prompt, PromptBuilder
from signllava_cli.data.tasks import Instruction
from signllava_cli.errors import UserError

BOUNDARY_VECTORS = 2  # vectors around each stream


@dataclass(frozen=True)
class Truncation:
    """What was removed from a sequence to fit the token budget: frames over all streams, and context sentences."""

    frames: int = 0
    sentences: int = 0

    def __bool__(self) -> bool:
        return bool(self.frames or self.sentences)

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(self.frames + other.frames, self.sentences + other.sentences)


@dataclass(frozen=True)
class Example:
    """One clip as model input.

    `id`: `recording/clip` for a clip of a dataset. `streams`: stream name -> float16 frames (T, width).
    `context`: the sentences in the prompt. `answer`: target token ids, empty in generation.
    """

    id: str
    streams: dict[str, np.ndarray]
    context: tuple[str, ...]
    prompt: Prompt
    answer: tuple[int, ...]
    truncation: Truncation

    @property
    def seq_len(self) -> int:
        """The length of the sequence in tokens: prompt, frames, boundary vectors and answer."""
        return _sequence_length(self.prompt, self.streams, self.answer)


class ClipTooLong(UserError):
    """The instruction, the answer and the fewest frames of a clip exceed the token budget."""


class ExampleBuilder:
    """Builds examples of at most `max_seq_len` tokens, for training, evaluation, generation and the API.

    Args:
        prompts: of the tokenizer and the tasks.
        max_seq_len: tokens of a sequence, frames and boundary vectors included.
        min_frames: truncation leaves at least so many frames of each stream.
        prelude: how many context sentences belong to the prelude, unless `build` is given another number.
    """

    def __init__(self, prompts: PromptBuilder, max_seq_len: int, min_frames: int, prelude: int) -> None:
        self.prompts, self.max_seq_len, self.min_frames, self.prelude = prompts, max_seq_len, min_frames, prelude

    def build(
        self,
        example_id: str,
        streams: dict[str, np.ndarray],
        instruction: Instruction,
        context: Sequence[str],
        prelude: int | None = None,
        reserve: int = 0,
        with_answer: bool = True,
    ) -> Example:
        """The example of one clip: frames in reverse if `instruction.is_reversed`, truncated to the budget.

        Frames are removed first, evenly from every stream, then context sentences, the oldest of the window first.

        Args:
            streams: stream name -> float16 frames (T, width), in playing order.
            context: the sentences that the clip sees, in signing order.
            prelude: how many of `context` belong to the recording's prelude; by default the recipe's number.
            reserve: tokens of the budget that are left free for generation.
            with_answer: whether the sequence ends with the instruction's answer, as in training.

        Raises:
            ClipTooLong: what is never removed exceeds the budget.
        """
        if instruction.is_reversed:
            streams = {name: frames[::-1] for name, frames in streams.items()}
        sentences = list(context)
        num_prelude = self.prelude if prelude is None else prelude
        answer = self.prompts.answer(instruction.answer) if with_answer else ()
        budget = self.max_seq_len - reserve
        while True:
            prompt = self.prompts.prompt(sentences, instruction.text)
            excess = _sequence_length(prompt, streams, answer) - budget
            truncated = streams if excess <= 0 else self._remove_frames(streams, excess)
            if _sequence_length(prompt, truncated, answer) <= budget:
                break
            if not sentences:
                reserved = f", {reserve} tokens reserved for generate.max_new_tokens" if reserve else ""
                raise ClipTooLong(
                    f"Clip {example_id}: the prompt, {len(answer)} answer tokens and {self.min_frames} frames per "
                    f"stream{reserved} exceed data.max_seq_len={self.max_seq_len}; raise it, or lower the others."
                )
            sentences.pop(min(num_prelude, len(sentences) - 1))  # the oldest sentence of the window
        truncation = Truncation(_total_frames(streams) - _total_frames(truncated), len(context) - len(sentences))
        return Example(example_id, truncated, tuple(sentences), prompt, answer, truncation)

    def _remove_frames(self, streams: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """The streams with `count` frames fewer in total where `min_frames` allows, the same share of each."""
        removable = {name: max(0, len(frames) - self.min_frames) for name, frames in streams.items()}
        share = min(1.0, count / max(1, sum(removable.values())))
        lengths = {name: len(frames) - int(np.ceil(removable[name] * share)) for name, frames in streams.items()}
        return {name: subsample(frames, lengths[name]) for name, frames in streams.items()}


def _total_frames(streams: dict[str, np.ndarray]) -> int:
    return sum(len(frames) for frames in streams.values())


def _sequence_length(prompt: Prompt, streams: dict[str, np.ndarray], answer: Sequence[int]) -> int:
    num_text_tokens = len(prompt.before) + len(prompt.after) + len(answer)
    return num_text_tokens + _total_frames(streams) + BOUNDARY_VECTORS * len(streams)
