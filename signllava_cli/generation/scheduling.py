"""Which clips a process decodes, in which order, and when each of them enters the decoder.

`select_clips` selects those of one process; `DecodingQueue` decodes them under one context source, in the order of a
`ReadyQueue`, with the model, the frames and the instructions of a `DecodingJob`.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.data.work_shard import WorkShard
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import Decoder, Hypothesis, open_decoder, print_slow_decoder, should_admit
from signllava_cli.generation.feature_controls import FrameSource
from signllava_cli.generation.instructions import Instructions
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe

TEXT_TOKENS_PER_CLIP = 150  # rough cost of a clip beside its embeddings: its prompt and its hypothesis


def select_clips(shard: WorkShard, num_embeddings: np.ndarray, recordings: np.ndarray | None) -> np.ndarray:
    """The rows of the clips of `shard`, ascending. Every clip is in one shard; all have about equal work.

    The groups with the most work are assigned first, each to the shard with the least work so far.

    Args:
        num_embeddings: of each clip of the split, (clips,).
        recordings: the number of each clip's recording, (clips,), if recordings stay whole.
    """
    groups = np.arange(len(num_embeddings)) if recordings is None else recordings
    work = np.bincount(groups, num_embeddings + TEXT_TOKENS_PER_CLIP)  # (groups,)
    loads, shards = np.zeros(shard.count), np.zeros(len(work), np.int64)  # of the shards; of the groups
    for group in np.argsort(-work, kind="stable"):
        shards[group] = loads.argmin()
        loads[shards[group]] += work[group]
    return np.flatnonzero(shards[groups] == shard.index)


class ReadyQueue:
    """The rows of the clips that are not decoded yet, in arrays: a split may have a million clips.

    Without `recordings`, all clips are ready and the longest come first: prompts of similar length are read together,
    and the last batch is short.

    With `recordings`, a clip is ready when the one before it in its recording is decoded, and recordings with the
    most clips left come first: this keeps batches full as long as possible.

    Args:
        rows: of the clips, ascending, (N,).
        num_embeddings: of these clips, (N,).
        recordings: the number of the recording of each of these clips, (N,), if they are decoded in order.
    """

    def __init__(self, rows: np.ndarray, num_embeddings: np.ndarray, recordings: np.ndarray | None = None) -> None:
        self._is_sequential, self._num_taken = recordings is not None, 0
        if recordings is None:
            self._rows, starts = rows[np.argsort(-num_embeddings, kind="stable")], np.zeros(0, np.int64)
        else:
            self._rows, starts = rows, np.flatnonzero(np.diff(recordings, prepend=-1))
        self._first_rows = self._rows[starts]  # of each recording, (recordings,)
        self._next, self._ends = starts, np.append(starts[1:], len(rows))  # indices in `_rows`, of each recording
        self._ready = [self._priority(recording) for recording in range(len(starts))]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        """Whether clips are left, ready or not."""
        return self._num_taken < len(self._rows)

    def take(self, count: int) -> list[int]:
        """Remove at most `count` of the ready clips and return their rows."""
        if not self._is_sequential:
            rows = self._rows[self._num_taken : self._num_taken + count]
        else:
            recordings = [heapq.heappop(self._ready) % len(self._ends) for _ in self._ready[:count]]
            rows = self._rows[self._next[recordings]]
            self._next[recordings] += 1
        self._num_taken += len(rows)
        return [int(row) for row in rows]

    def mark_decoded(self, row: int) -> None:
        """Make the next clip of the recording ready."""
        recording = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        if self._is_sequential and self._next[recording] < self._ends[recording]:
            heapq.heappush(self._ready, self._priority(recording))

    def _priority(self, recording: int) -> int:
        """A number that is lower for a recording with more clips left, and then for an earlier one."""
        return int(self._next[recording] - self._ends[recording]) * len(self._ends) + recording


@dataclass(frozen=True)
class DecodingJob:
    """What decoding needs under every context source. `num_embeddings`: of each clip of the split, int64 (clips,)."""

    recipe: Recipe
    split: Split
    num_embeddings: np.ndarray
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
        return cls(recipe, split, num_embeddings, frames, instructions, builder, decoder)


@dataclass(frozen=True)
class DecodedClip:
    """A clip with the example that the model read, and its hypothesis."""

    clip: Clip
    example: Example
    hypothesis: Hypothesis


class DecodingQueue:
    """Decodes clips under one context source.

    `hypotheses`: of every decoded clip, the context of later clips under predicted context.

    Args:
        rows: of the clips, ascending, (N,); each has features and an instruction.
        hypotheses: those of earlier runs.
    """

    def __init__(self, job: DecodingJob, source: ContextSource, rows: np.ndarray, hypotheses: Sentences) -> None:
        self.job, self.source, self.hypotheses = job, source, hypotheses
        recordings = job.split.index.recordings[rows] if source.is_sequential else None
        self._ready = ReadyQueue(rows, job.num_embeddings[rows], recordings)
        self._clips: dict[str, Clip] = {}  # by id, those whose example is built
        self._examples: deque[Example] = deque()  # built, but not admitted yet

    def step(self) -> list[DecodedClip]:
        """Admit ready clips if the decoder has free slots, decode one more token, and return the finished clips."""
        self._admit()
        decoded = [
            DecodedClip(self._clips.pop(example.id), example, hypothesis)
            for example, hypothesis in self.job.decoder.step()
        ]
        for finished in decoded:
            self.hypotheses[finished.clip.row] = finished.hypothesis.text
            self._ready.mark_decoded(finished.clip.row)
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

    def _build_examples(self, rows: list[int]) -> list[Example]:
        clips = [self.job.split.index.clip(row) for row in rows]
        self._clips |= {clip.id: clip for clip in clips}
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
