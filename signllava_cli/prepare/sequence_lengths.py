"""Measures the sequences of a recipe, and what training truncates, without reading a frame."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import ClipTooLong, Example, ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import Instruction, translation_instruction
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Recipe

SAMPLE_SIZE, SAMPLE_SEED = 20_000, 0  # clips of a split whose sequences are built
UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class LengthStatistics:
    """Statistics of lengths; all None without lengths. `p95`: the smallest length that 95% do not exceed."""

    min: int | None = None
    median: int | None = None
    mean: float | None = None
    p90: int | None = None
    p95: int | None = None
    p99: int | None = None
    max: int | None = None

    @classmethod
    def of(cls, lengths: np.ndarray) -> "LengthStatistics":
        """The statistics of the integers `lengths` (n,)."""
        if not len(lengths):
            return cls()
        minimum, median, *percentiles = np.percentile(
            lengths, (0, 50, 90, 95, 99, 100), method="inverted_cdf"
        ).tolist()
        return cls(minimum, median, float(lengths.mean()), *percentiles)


@dataclass(frozen=True)
class SequenceStatistics:
    """The lengths in tokens of the sequences of `clips` clips of a split.

    `untruncated`: without a maximum; `truncated`: as trained on, at most `max_seq_len`, without the clips
    (`recording/clip`) that are `too_long`. `frames_truncated` clips lose frames, `context_truncated` clips lose
    context sentences.
    """

    clips: int
    max_seq_len: int
    untruncated: LengthStatistics
    truncated: LengthStatistics
    frames_truncated: int
    context_truncated: int
    too_long: tuple[str, ...]


@dataclass(frozen=True)
class EmbeddingStatistics:
    """Means per clip for one projector: frames read, summed over its streams, and embeddings made of them.

    `architecture`: the projector in words.
    """

    architecture: str
    frames: float
    embeddings: float


@dataclass(frozen=True)
class RecipeStatistics:
    """The `clips` of a split that have features in every stream of a recipe.

    `frames`: the number of frames read per clip, summed over streams, with the recipe's stride and max_frames.
    `embeddings`: the number of embeddings that the projectors make of them, by projector. `sequences`: of all these
    clips, or of a sample; None without a tokenizer.
    """

    clips: int
    frames: LengthStatistics
    embeddings: dict[str, EmbeddingStatistics]
    sequences: SequenceStatistics | None


def measure_recipe(
    root: Path, split: str, recipe: Recipe, prompts: PromptBuilder | None
) -> tuple[RecipeStatistics, np.ndarray]:
    """The statistics of `split` with `recipe`, and the lengths of untruncated sequences, (clips,).

    The task is translation with gold context. Clips without features in a stream are skipped, also if training would
    refuse the split.

    Raises:
        UserError: widths are not those of the recipe, or no clip has features.
    """
    dataset = Split(open_index(root, split, recipe.streams), split, recipe.streams, missing="skip")
    num_frames = {stream.name: stream.kept_frame_counts() for stream in dataset.streams}
    frames = LengthStatistics.of(sum(num_frames.values(), np.zeros(len(dataset.index), np.int64))[dataset.clips.rows])
    embeddings = measure_embeddings(dataset)
    if prompts is None:
        return RecipeStatistics(len(dataset.clips), frames, embeddings, None), np.empty(0, np.int64)
    sequences, lengths = _measure_sequences(dataset, num_frames, recipe, prompts)
    return RecipeStatistics(len(dataset.clips), frames, embeddings, sequences), lengths


def measure_embeddings(split: Split) -> dict[str, EmbeddingStatistics]:
    """The frames and embeddings of the clips of `split`, by projector. No frame is read."""
    num_frames = {stream.name: stream.kept_frame_counts()[split.clips.rows] for stream in split.streams}
    return {
        name: EmbeddingStatistics(
            projector_input.config.architecture,
            float(sum(num_frames[stream].mean() for stream in projector_input.streams)),
            float(split.count_embeddings()[name][split.clips.rows].mean()),
        )
        for name, projector_input in split.inputs.items()
    }


def _measure_sequences(
    split: Split, num_frames: dict[str, np.ndarray], recipe: Recipe, prompts: PromptBuilder
) -> tuple[SequenceStatistics, np.ndarray]:
    bounded = ExampleBuilder(
        prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
    )
    unbounded = ExampleBuilder(prompts, recipe.streams, UNLIMITED, recipe.data.min_frames, recipe.context.prelude)
    untruncated: list[int] = []
    examples: list[Example] = []
    too_long: list[str] = []
    indices = _sample_indices(len(split.clips))
    with progress(f"sequences of split {split.name}", len(indices)) as bar:
        for clip in (split.clips[index] for index in indices):
            frames = {name: np.empty((counts[clip.row], 0), np.float16) for name, counts in num_frames.items()}
            context = split.gold_context(clip, recipe.context.window, recipe.context.prelude)
            instruction = translation_instruction(recipe.tasks, clip.translation)
            example = _build_or_none(bounded, clip, frames, instruction, context)
            if example is None:
                too_long.append(clip.id)
            else:
                examples.append(example)
            if example is None or example.truncation:
                untruncated.append(unbounded.build(clip.id, frames, instruction, context).seq_len)
            else:
                untruncated.append(example.seq_len)
            bar.advance()
    sequences = SequenceStatistics(
        clips=len(untruncated),
        max_seq_len=recipe.data.max_seq_len,
        untruncated=LengthStatistics.of(np.array(untruncated)),
        truncated=LengthStatistics.of(np.array([example.seq_len for example in examples])),
        frames_truncated=sum(example.truncation.frames > 0 for example in examples),
        context_truncated=sum(example.truncation.sentences > 0 for example in examples),
        too_long=tuple(too_long),
    )
    return sequences, np.array(untruncated)


def _build_or_none(
    builder: ExampleBuilder,
    clip: Clip,
    frames: dict[str, np.ndarray],
    instruction: Instruction,
    context: list[str],
) -> Example | None:
    """The example, or None if the clip does not fit into the builder's max_seq_len."""
    try:
        return builder.build(clip.id, frames, instruction, context)
    except ClipTooLong:
        return None


def _sample_indices(num_clips: int) -> np.ndarray:
    """Indices of all clips, or of the same `SAMPLE_SIZE` clips each time, in order."""
    if num_clips <= SAMPLE_SIZE:
        return np.arange(num_clips)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(num_clips, SAMPLE_SIZE, replace=False))
