"""Which clips a process decodes, in which order, and when each of them enters the decoder.

`WorkShard` selects the clips of one process; `DecodingQueue` decodes them under one context source, in the order of a
`ReadyQueue`, with the model, the frames and the instructions of a `DecodingJob`.
"""

import heapq
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import Decoder, Hypothesis, open_decoder, print_slow_decoder, should_admit
from signllava_cli.generation.feature_controls import FrameSource
from signllava_cli.generation.instructions import Instructions
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe

TEXT_TOKENS_PER_CLIP = 150  # rough cost of a clip beside its embeddings: its prompt and its hypothesis


@dataclass(frozen=True)
class WorkShard:
    """Part `index` (counted from 0) of `count` parts of the clips."""

    index: int
    count: int

    @classmethod
    def of_process(cls, shard: str | None) -> "WorkShard":
        """The shard of this rank in job `shard` ("i/n", i counted from 1; None: the only job).

        Raises:
            UserError: `shard` is not of this form.
        """
        job, num_jobs = 1, 1
        if shard is not None:
            numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
            job, num_jobs = map(int, numbers.groups()) if numbers else (0, 0)
            if not 1 <= job <= num_jobs:
                raise UserError(f"--shard {shard}: expected I/N with I from 1 to N, such as 3/8.")
        rank, num_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return cls((job - 1) * num_ranks + rank, num_jobs * num_ranks)

    def __str__(self) -> str:
        return f"{self.index + 1}-of-{self.count}"

    def select(self, clips: Sequence[Clip], num_embeddings: Sequence[int], is_sequential: bool) -> list[Clip]:
        """The clips of this shard, in their order. Every clip is in one shard; all shards have about equal work.

        Recordings stay whole if `is_sequential`. The groups with the most work are assigned first, each to the shard
        with the least work so far.

        Args:
            num_embeddings: of each clip.
        """
        if self.count == 1:
            return list(clips)
        groups: dict[str, list[int]] = {}  # recording or clip id -> indices of clips
        for index, clip in enumerate(clips):
            groups.setdefault(clip.recording if is_sequential else clip.id, []).append(index)
        work = {
            name: sum(num_embeddings[index] + TEXT_TOKENS_PER_CLIP for index in indices)
            for name, indices in groups.items()
        }
        loads = np.zeros(self.count)
        selected: list[int] = []
        for name in sorted(groups, key=lambda name: -work[name]):
            shard_index = int(loads.argmin())
            loads[shard_index] += work[name]
            if shard_index == self.index:
                selected += groups[name]
        return [clips[index] for index in sorted(selected)]


class ReadyQueue:
    """The clips that are not decoded yet.

    Unless `is_sequential`, all clips are ready and the longest come first: prompts of similar length are read
    together, and the last batch is short.

    If `is_sequential`, a clip is ready when the one before it in its recording is decoded, and recordings with the
    most clips left come first: this keeps batches full as long as possible.

    Args:
        clips: in dataset order.
        num_embeddings: of each clip.
    """

    def __init__(self, clips: Sequence[Clip], num_embeddings: Sequence[int], is_sequential: bool) -> None:
        queues: dict[str, deque[Clip]] = {}
        if is_sequential:
            for clip in clips:
                queues.setdefault(clip.recording, deque()).append(clip)
        else:
            longest_first = sorted(range(len(clips)), key=lambda index: -num_embeddings[index])
            queues = {clips[index].id: deque([clips[index]]) for index in longest_first}
        self._queues = queues
        self._order = {name: index for index, name in enumerate(queues)}
        self._is_sequential = is_sequential
        self._ready = [self._priority(name) for name in queues]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        """Whether clips are left, ready or not."""
        return bool(self._queues)

    def take(self, count: int) -> list[Clip]:
        """Remove at most `count` of the ready clips and return them."""
        clips: list[Clip] = []
        while self._ready and len(clips) < count:
            *_, name = heapq.heappop(self._ready)
            clips.append(self._queues[name].popleft())
            if not self._queues[name]:
                del self._queues[name]
        return clips

    def mark_decoded(self, clip: Clip) -> None:
        """Make the next clip of the recording ready."""
        if self._is_sequential and clip.recording in self._queues:
            heapq.heappush(self._ready, self._priority(clip.recording))

    def _priority(self, name: str) -> tuple[int, int, str]:
        return -len(self._queues[name]), self._order[name], name


@dataclass(frozen=True)
class DecodingJob:
    """What decoding needs under every context source. `num_embeddings`: of each clip of the split, in all."""

    recipe: Recipe
    split: Split
    num_embeddings: list[int]
    frames: FrameSource
    instructions: Instructions
    builder: ExampleBuilder
    decoder: Decoder

    @classmethod
    def open(cls, recipe: Recipe, split: Split, bundle: ModelBundle) -> "DecodingJob":
        """The job that `recipe.generate` describes.

        Raises:
            UserError: the split or the LLM cannot do what it asks for.
        """
        num_embeddings = np.sum(list(split.count_embeddings().values()), axis=0)
        builder = ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        frames, instructions = FrameSource(split, recipe.generate), Instructions(recipe, split)
        decoder = open_decoder(bundle, recipe)
        print_slow_decoder(decoder)
        return cls(recipe, split, num_embeddings.tolist(), frames, instructions, builder, decoder)


@dataclass(frozen=True)
class DecodedClip:
    """A clip with the example that the model read, and its hypothesis."""

    clip: Clip
    example: Example
    hypothesis: Hypothesis


class DecodingQueue:
    """Decodes clips under one context source.

    `hypotheses`: clip id -> hypothesis of every decoded clip, the context of later clips under predicted context.

    Args:
        clips: in dataset order; each has features and an instruction.
        hypotheses: those of earlier runs.
    """

    def __init__(
        self, job: DecodingJob, source: ContextSource, clips: Sequence[Clip], hypotheses: Mapping[str, str]
    ) -> None:
        self.job, self.source, self.hypotheses = job, source, dict(hypotheses)
        self._ready = ReadyQueue(clips, [job.num_embeddings[clip.row] for clip in clips], source.is_sequential)
        self._clips = {clip.id: clip for clip in clips}
        self._examples: deque[Example] = deque()  # built, but not admitted yet

    def step(self) -> list[DecodedClip]:
        """Admit ready clips if the decoder has free slots, decode one more token, and return the finished clips."""
        self._admit()
        decoded = [
            DecodedClip(self._clips[example.id], example, hypothesis)
            for example, hypothesis in self.job.decoder.step()
        ]
        for finished in decoded:
            self.hypotheses[finished.clip.id] = finished.hypothesis.text
            self._ready.mark_decoded(finished.clip)
        return decoded

    def _admit(self) -> None:
        decoder, config = self.job.decoder, self.job.recipe.generate
        if not should_admit(len(decoder.active), config.batch_size):
            return
        num_free = config.batch_size - len(decoder.active)
        self._examples += self._build_examples(self._ready.take(num_free - len(self._examples)))
        admitted: list[Example] = []
        while (
            self._examples
            and len(admitted) < num_free
            and self._fits_budget([*decoder.active, *admitted, self._examples[0]])
        ):
            admitted.append(self._examples.popleft())
        if admitted:
            decoder.admit(admitted)

    def _fits_budget(self, batch: Sequence[Example]) -> bool:
        config = self.job.recipe.generate
        if config.max_tokens_per_batch is None or len(batch) == 1:
            return True
        longest = max(example.seq_len for example in batch) + config.max_new_tokens
        return longest * len(batch) <= config.max_tokens_per_batch

    def _build_examples(self, clips: list[Clip]) -> list[Example]:
        return [
            self._build_example(clip, streams)
            for clip, streams in zip(clips, self.job.frames.read_all(clips), strict=True)
        ]

    def _build_example(self, clip: Clip, streams: dict[str, np.ndarray]) -> Example:
        instruction = self.job.instructions.for_clip(clip)
        assert instruction is not None
        context = self.source.sentences(clip, self.job.split, self.hypotheses)
        reserve = self.job.recipe.generate.max_new_tokens
        return self.job.builder.build(clip.id, streams, instruction, context, reserve=reserve, with_answer=False)
