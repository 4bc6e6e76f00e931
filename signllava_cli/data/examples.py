"""One clip as model input: its frames, its prompt and its answer, truncated to the token budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.feature_stream import subsample
from signllava_cli.data.projector_inputs import join_all, projector_inputs
from signllava_cli.data.prompts import Prompt, PromptBuilder
from signllava_cli.data.tasks import Instruction
from signllava_cli.errors import UserError, format_count
from signllava_cli.recipe import Stream

BOUNDARY_VECTORS = 2  # vectors around the embeddings of each projector


@dataclass(frozen=True)
class Truncation:
    """What was removed from a sequence to fit the token budget: frames over all streams, and context sentences.

    A frame of joined streams counts once.
    """

    frames: int = 0
    sentences: int = 0

    def __bool__(self) -> bool:
        return bool(self.frames or self.sentences)

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(self.frames + other.frames, self.sentences + other.sentences)


@dataclass(frozen=True)
class Example:
    """One clip as model input.

    `id`: `recording/clip` for a clip of a dataset. `streams`: name of a projector's input (a stream, or joined
    streams) -> float16 frames (T, width). `num_embeddings`: name -> the embeddings that the projector makes of them.
    `context`: the sentences in the prompt. `answer`: target token ids, empty in generation.
    """

    id: str
    streams: dict[str, np.ndarray]
    num_embeddings: dict[str, int]
    context: tuple[str, ...]
    prompt: Prompt
    answer: tuple[int, ...]
    truncation: Truncation

    @property
    def seq_len(self) -> int:
        """The length of the sequence in tokens: prompt, embeddings, boundary vectors and answer."""
        return _sequence_length(self.prompt, self.num_embeddings, self.answer)


class ClipTooLong(UserError):
    """The instruction, the answer and the fewest frames of a clip exceed the token budget."""


class ExampleBuilder:
    """Builds examples of at most `max_seq_len` tokens, for training, evaluation, generation and the API.

    Args:
        prompts: of the tokenizer and the tasks.
        streams: the section `streams` of the recipe.
        max_seq_len: tokens of a sequence, embeddings of frames and boundary vectors included.
        min_frames: truncation leaves at least so many frames of each stream.
        prelude: how many context sentences belong to the prelude, unless `build` is given another number.
    """

    def __init__(
        self, prompts: PromptBuilder, streams: Mapping[str, Stream], max_seq_len: int, min_frames: int, prelude: int
    ) -> None:
        self.prompts, self.max_seq_len, self.min_frames, self.prelude = prompts, max_seq_len, min_frames, prelude
        self.inputs = projector_inputs(streams)

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
            streams: stream name -> float16 frames (T, width), in playing order. Joined streams are of equal length;
                the frames of one that is missing are zeros, unless all of them are.
            context: the sentences that the clip sees, in signing order.
            prelude: how many of `context` belong to the recording's prelude; by default the recipe's number.
            reserve: tokens of the budget that are left free for generation.
            with_answer: whether the sequence ends with the instruction's answer, as in training.

        Raises:
            ClipTooLong: what is never removed exceeds the budget.
        """
        inputs = join_all(streams, self.inputs)
        if instruction.is_reversed:
            inputs = {name: frames[::-1] for name, frames in inputs.items()}
        num_embeddings = self._count_embeddings(inputs)
        sentences = list(context)
        num_prelude = self.prelude if prelude is None else prelude
        answer = self.prompts.answer(instruction.answer) if with_answer else ()
        budget = self.max_seq_len - reserve
        while True:
            prompt = self.prompts.prompt(sentences, instruction.text)
            excess = _sequence_length(prompt, num_embeddings, answer) - budget
            truncated = inputs if excess <= 0 else self._remove_frames(inputs, excess)
            if _sequence_length(prompt, self._count_embeddings(truncated), answer) <= budget:
                break
            if not sentences:
                reserved = f", {reserve} tokens reserved for generate.max_new_tokens" if reserve else ""
                raise ClipTooLong(
                    f"Clip {example_id}: the prompt, {format_count(len(answer), 'answer token')} and "
                    f"{format_count(self.min_frames, 'frame')} per stream{reserved} "
                    f"exceed data.max_seq_len={self.max_seq_len}; raise it, or lower the others."
                )
            sentences.pop(min(num_prelude, len(sentences) - 1))  # the oldest sentence of the window
        truncation = Truncation(_total_frames(inputs) - _total_frames(truncated), len(context) - len(sentences))
        num_embeddings = self._count_embeddings(truncated)
        return Example(example_id, truncated, num_embeddings, tuple(sentences), prompt, answer, truncation)

    def _count_embeddings(self, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {name: self.inputs[name].count_embeddings(len(frames)) for name, frames in inputs.items()}

    def _remove_frames(self, inputs: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """The frames that give `count` embeddings fewer where `min_frames` allows, the same share of each input."""
        removable = {
            name: self.inputs[name].count_embeddings(len(frames))
            - self.inputs[name].count_embeddings(min(len(frames), self.min_frames))
            for name, frames in inputs.items()
        }
        share = min(1.0, count / max(1, sum(removable.values())))
        truncated = {}
        for name, frames in inputs.items():
            num_removed = int(np.ceil(removable[name] * share))
            num_embeddings = self.inputs[name].count_embeddings(len(frames)) - num_removed
            num_frames = min(len(frames), num_embeddings * self.inputs[name].frames_per_embedding)
            truncated[name] = subsample(frames, num_frames)
        return truncated


def _total_frames(inputs: Mapping[str, np.ndarray]) -> int:
    return sum(len(frames) for frames in inputs.values())


def _sequence_length(prompt: Prompt, num_embeddings: Mapping[str, int], answer: Sequence[int]) -> int:
    num_text_tokens = len(prompt.before) + len(prompt.after) + len(answer)
    return num_text_tokens + sum(num_embeddings.values()) + BOUNDARY_VECTORS * len(num_embeddings)
