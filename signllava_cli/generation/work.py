"""What there is to decode, and how it goes into the decoder."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.controls import ShownFrames
from signllava_cli.generation.decoding import Decoder, is_time_to_admit, open_decoder
from signllava_cli.generation.frontier import Frontier
from signllava_cli.generation.questions import Questions
from signllava_cli.model.assembly import Assembled
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class Work:
    """What is the same under every context source: the clips, how they are shown and asked about, who decodes."""

    recipe: Recipe
    split: Split
    frames: list[int]
    shown: ShownFrames
    questions: Questions
    builder: ExampleBuilder
    decoder: Decoder

    @classmethod
    def of(cls, recipe: Recipe, split: Split, assembled: Assembled) -> "Work":
        """All that `recipe.generate` asks for."""
        shown, questions = ShownFrames(split, recipe.generate), Questions(recipe, split)
        frames = np.sum([stream.kept_frames() for stream in split.streams], axis=0)
        builder = ExampleBuilder(recipe, assembled.prompts)
        return cls(recipe, split, frames.tolist(), shown, questions, builder, open_decoder(assembled, recipe))

    @property
    def label(self) -> str:
        """What the name of a folder says of it, if there is something to say."""
        settings = self.recipe.generate
        parts = [f"without-{name}" for name in settings.ablate]
        parts += [] if settings.features == "own" else [settings.features]
        parts += [] if self.questions.task == "translation" else [self.questions.task]
        return "".join(f"{part}." for part in parts)


@dataclass
class Queue:
    """The clips on their way into the decoder, and those inside."""

    work: Work
    source: ContextSource
    frontier: Frontier
    hypotheses: dict[str, str]
    built: deque[Example] = field(default_factory=deque)

    def fill(self) -> None:
        """Admit as many clips as there is room for, when it is time to."""
        decoder, settings = self.work.decoder, self.work.recipe.generate
        if not is_time_to_admit(len(decoder.active), settings.batch_size):
            return
        room = settings.batch_size - len(decoder.active)
        self.built += self._examples(self.frontier.take(room - len(self.built)))
        admitted: list[Example] = []
        while self.built and len(admitted) < room and self._fits([*decoder.active, *admitted, self.built[0]]):
            admitted.append(self.built.popleft())
        if admitted:
            decoder.admit(admitted)

    def _fits(self, together: Sequence[Example]) -> bool:
        settings = self.work.recipe.generate
        if settings.tokens_per_batch is None or len(together) == 1:
            return True
        longest = max(example.positions for example in together) + settings.max_new_tokens
        return longest * len(together) <= settings.tokens_per_batch

    def _examples(self, clips: list[Clip]) -> list[Example]:
        work = self.work
        return [self._example(clip, frames) for clip, frames in zip(clips, work.shown.read_all(clips), strict=True)]

    def _example(self, clip: Clip, frames: dict[str, np.ndarray]) -> Example:
        question = self.work.questions.of(clip)
        assert question is not None
        if question.backwards:
            frames = {name: its[::-1] for name, its in frames.items()}
        sentences = self.source.sentences(clip, self.work.split, self.hypotheses)
        room = self.work.recipe.generate.max_new_tokens
        return self.work.builder.build(clip, frames, sentences, None, question=question.text, room=room)
