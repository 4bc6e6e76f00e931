"""Which clips a process decodes, in which order they become ready, and how they enter the decoder."""

import heapq
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import Decoder, open_decoder, should_admit
from signllava_cli.generation.feature_controls import FrameSource
from signllava_cli.generation.instructions import Instructions
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe


class ReadyQueue:
    """The clips that wait to be decoded.

    Free, the longest come first, so that prompts of like length are read together and the last batch is short work.
    `in_order`, a recording's next clip becomes ready when the one before it is done, and the recordings with the most
    clips left come first: the last batches are full as long as can be.

    Args:
        clips: those that wait, in dataset order.
        frames: how many frames each has.
    """

    def __init__(self, clips: Sequence[Clip], frames: Sequence[int], sequential: bool) -> None:
        queues: dict[str, deque[Clip]] = {}
        if sequential:
            for clip in clips:
                queues.setdefault(clip.recording, deque()).append(clip)
        else:
            longest_first = sorted(range(len(clips)), key=lambda index: -frames[index])
            queues = {clips[index].id: deque([clips[index]]) for index in longest_first}
        self._queues = queues
        self._order = {name: index for index, name in enumerate(queues)}
        self._in_order = sequential
        self._ready = [self._rank(name) for name in queues]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        """Whether clips wait, ready or not."""
        return bool(self._queues)

    def take(self, count: int) -> list[Clip]:
        """At most `count` of the ready clips, which leave the frontier."""
        taken: list[Clip] = []
        while self._ready and len(taken) < count:
            *_, name = heapq.heappop(self._ready)
            taken.append(self._queues[name].popleft())
            if not self._queues[name]:
                del self._queues[name]
        return taken

    def done(self, clip: Clip) -> None:
        """`clip` is decoded: the next one of its recording is ready."""
        if self._in_order and clip.recording in self._queues:
            heapq.heappush(self._ready, self._rank(clip.recording))

    def _rank(self, name: str) -> tuple[int, int, str]:
        return -len(self._queues[name]), self._order[name], name


TEXT_TOKENS_PER_CLIP = 150  # what a clip costs beside its frames, about: its prompt and its hypothesis


@dataclass(frozen=True)
class WorkShard:
    """Part `index` (from 0 on) of `count`."""

    index: int
    count: int

    @classmethod
    def of_process(cls, shard: str | None) -> "WorkShard":
        """The share of this rank of job `shard` ("i/n", i from 1 on; none: the only job).

        Raises:
            UserError: `shard` is not such.
        """
        job, jobs = 1, 1
        if shard is not None:
            numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
            job, jobs = map(int, numbers.groups()) if numbers else (0, 0)
            if not 1 <= job <= jobs:
                raise UserError(f"--shard {shard}: expected I/N with I from 1 to N, such as 3/8.")
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return cls((job - 1) * ranks + rank, jobs * ranks)

    def __str__(self) -> str:
        return f"{self.index + 1}-of-{self.count}"

    def of(self, clips: Sequence[Clip], frames: Sequence[int], sequential: bool) -> list[Clip]:
        """This share of `clips`, in their order; all shares together are all of them, with about equal work.

        `in_order` shares out whole recordings. Each goes, the most work first, to whoever has the least so far.
        """
        if self.count == 1:
            return list(clips)
        groups: dict[str, list[int]] = {}
        for place, clip in enumerate(clips):
            groups.setdefault(clip.recording if sequential else clip.id, []).append(place)
        work = {
            name: sum(frames[place] + TEXT_TOKENS_PER_CLIP for place in indices) for name, indices in groups.items()
        }
        loads = np.zeros(self.count)
        mine: list[int] = []
        for name in sorted(groups, key=lambda name: -work[name]):
            least = int(loads.argmin())
            loads[least] += work[name]
            if least == self.index:
                mine += groups[name]
        return [clips[place] for place in sorted(mine)]


@dataclass(frozen=True)
class DecodingJob:
    """What is the same under every context source: the clips, how they are shown and asked about, who decodes."""

    recipe: Recipe
    split: Split
    frames: list[int]
    shown: FrameSource
    questions: Instructions
    builder: ExampleBuilder
    decoder: Decoder

    @classmethod
    def of(cls, recipe: Recipe, split: Split, bundle: ModelBundle) -> "DecodingJob":
        """All that `recipe.generate` asks for."""
        shown, questions = FrameSource(split, recipe.generate), Instructions(recipe, split)
        frames = np.sum([stream.kept_frame_counts() for stream in split.streams], axis=0)
        builder = ExampleBuilder(
            bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        return cls(recipe, split, frames.tolist(), shown, questions, builder, open_decoder(bundle, recipe))

    @property
    def label(self) -> str:
        """What the name of a folder says of it, if there is something to say."""
        config = self.recipe.generate
        parts = [f"without-{name}" for name in config.ablate]
        parts += [] if config.features == "own" else [config.features]
        parts += [] if self.questions.task == "translation" else [self.questions.task]
        return "".join(f"{part}." for part in parts)


@dataclass
class AdmissionQueue:
    """The clips on their way into the decoder, and those inside."""

    work: DecodingJob
    source: ContextSource
    frontier: ReadyQueue
    hypotheses: dict[str, str]
    built: deque[Example] = field(default_factory=deque)

    def fill(self) -> None:
        """Admit as many clips as there is room for, when it is time to."""
        decoder, config = self.work.decoder, self.work.recipe.generate
        if not should_admit(len(decoder.active), config.batch_size):
            return
        room = config.batch_size - len(decoder.active)
        self.built += self._examples(self.frontier.take(room - len(self.built)))
        admitted: list[Example] = []
        while self.built and len(admitted) < room and self._fits([*decoder.active, *admitted, self.built[0]]):
            admitted.append(self.built.popleft())
        if admitted:
            decoder.admit(admitted)

    def _fits(self, together: Sequence[Example]) -> bool:
        config = self.work.recipe.generate
        if config.max_tokens_per_batch is None or len(together) == 1:
            return True
        longest = max(example.positions for example in together) + config.max_new_tokens
        return longest * len(together) <= config.max_tokens_per_batch

    def _examples(self, clips: list[Clip]) -> list[Example]:
        work = self.work
        return [self._example(clip, frames) for clip, frames in zip(clips, work.shown.read_all(clips), strict=True)]

    def _example(self, clip: Clip, frames: dict[str, np.ndarray]) -> Example:
        question = self.work.questions.of(clip)
        assert question is not None
        if question.is_reversed:
            frames = {name: its[::-1] for name, its in frames.items()}
        sentences = self.source.sentences(clip, self.work.split, self.hypotheses)
        room = self.work.recipe.generate.max_new_tokens
        return self.work.builder.build(clip, frames, sentences, None, question=question.text, room=room)
