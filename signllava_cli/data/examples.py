"""One clip made ready for the model: its frames, its prompt and its answer, cut to the token budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.feature_stream import subsample
from signllava_cli.data.prompts import Prompt, PromptBuilder
from signllava_cli.errors import UserError

BOUNDARY_VECTORS = 2  # vectors around each stream


@dataclass(frozen=True)
class Truncation:
    """What a sequence lost to fit the budget: frames over all streams, and context sentences."""

    frames: int = 0
    sentences: int = 0

    def __bool__(self) -> bool:
        return bool(self.frames or self.sentences)

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(self.frames + other.frames, self.sentences + other.sentences)


@dataclass(frozen=True)
class Example:
    """A clip as the model meets it.

    `streams`: stream name -> float16 frames (T, width). `context`: the sentences that the prompt holds.
    `answer`: target ids, empty in generation.
    """

    clip: Clip
    streams: dict[str, np.ndarray]
    context: tuple[str, ...]
    prompt: Prompt
    answer: tuple[int, ...]
    truncation: Truncation

    @property
    def positions(self) -> int:
        """The length of the sequence: prompt, frames, boundaries, and the answer."""
        return _sequence_length(self.prompt, self.streams, self.answer)


class ClipTooLong(UserError):
    """What a clip may not lose, its question, answer and fewest frames, exceeds the token budget."""


class ExampleBuilder:
    """Builds examples of at most `max_seq_len` tokens.

    Args:
        prompts: of the tokenizer and the tasks.
        max_seq_len: tokens of a sequence, frames and boundary vectors included.
        min_frames: how many frames of a stream are kept at least.
        prelude: how many context sentences belong to the prelude, unless `build` is given another number.
    """

    def __init__(self, prompts: PromptBuilder, max_seq_len: int, min_frames: int, prelude: int) -> None:
        self.prompts, self.max_seq_len, self.min_frames, self.prelude = prompts, max_seq_len, min_frames, prelude

    def build(
        self,
        clip: Clip,
        streams: dict[str, np.ndarray],
        context: Sequence[str],
        answer: str | None,
        question: str | None = None,
        room: int = 0,
        prelude: int | None = None,
    ) -> Example:
        """The example of `clip`, given its frames, the sentences it sees and, in training, its answer.

        Args:
            question: by default that for the translation.
            room: positions kept free for what generation will add.
            prelude: how many of `context` are of the recording's prelude; by default the recipe's number.

        Raises:
            CannotFit: the question and the answer alone exceed the budget.
        """
        sentences = list(context)
        first_of_window = self.prelude if prelude is None else prelude
        target = () if answer is None else self.prompts.answer(answer)
        budget = self.max_seq_len - room
        while True:
            prompt = self.prompts.prompt(sentences, question)
            over = _sequence_length(prompt, streams, target) - budget
            thinned = streams if over <= 0 else self._thinned(streams, over)
            if _sequence_length(prompt, thinned, target) <= budget:
                break
            if not sentences:
                kept_free = f", {room} kept free for generate.max_new_tokens" if room else ""
                raise ClipTooLong(
                    f"Clip {clip.id}: prompt, {len(target)} answer tokens and {self.min_frames} frames a stream"
                    f"{kept_free} exceed data.max_seq_len={self.max_seq_len}; raise it, or lower the others."
                )
            sentences.pop(min(first_of_window, len(sentences) - 1))  # the oldest sentence of the window
        truncation = Truncation(_total_frames(streams) - _total_frames(thinned), len(context) - len(sentences))
        return Example(clip, thinned, tuple(sentences), prompt, target, truncation)

    def _thinned(self, streams: dict[str, np.ndarray], over: int) -> dict[str, np.ndarray]:
        """The streams, `over` frames shorter in all where `min_frames` allows, each by the same share."""
        spare = {name: max(0, len(frames) - self.min_frames) for name, frames in streams.items()}
        share = min(1.0, over / max(1, sum(spare.values())))
        lengths = {name: len(frames) - int(np.ceil(spare[name] * share)) for name, frames in streams.items()}
        return {name: subsample(frames, lengths[name]) for name, frames in streams.items()}


def _total_frames(streams: dict[str, np.ndarray]) -> int:
    return sum(len(frames) for frames in streams.values())


def _sequence_length(prompt: Prompt, streams: dict[str, np.ndarray], answer: Sequence[int]) -> int:
    text = len(prompt.before) + len(prompt.after) + len(answer)
    return text + _total_frames(streams) + BOUNDARY_VECTORS * len(streams)
