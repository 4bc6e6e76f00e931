"""How long a recipe's sequences are, and what training cuts from them: counted without reading a frame."""

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

SAMPLE, SAMPLE_SEED = 20_000, 0  # clips of a split whose sequences are built
UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class LengthStatistics:
    """How some lengths are spread; all None where there are none. `p95`: the least of them that 95% do not exceed."""

    min: int | None = None
    median: int | None = None
    mean: float | None = None
    p90: int | None = None
    p95: int | None = None
    p99: int | None = None
    max: int | None = None

    @classmethod
    def of(cls, lengths: np.ndarray) -> "LengthStatistics":
        """How the whole numbers `lengths` (n,) are spread."""
        if not len(lengths):
            return cls()
        least, median, *others = np.percentile(lengths, (0, 50, 90, 95, 99, 100), method="inverted_cdf").tolist()
        return cls(least, median, float(lengths.mean()), *others)


@dataclass(frozen=True)
class SequenceStatistics:
    """What training makes of `clips` of a split, in positions.

    `whole`: the lengths if `max_positions` had no say; `cut`: as trained on, without the clips (`recording/clip`)
    that `cannot_fit`. `thinned` clips lose frames, those that `lose_context` lose sentences.
    """

    clips: int
    max_seq_len: int
    whole: LengthStatistics
    cut: LengthStatistics
    thinned: int
    lose_context: int
    cannot_fit: tuple[str, ...]


@dataclass(frozen=True)
class RecipeStatistics:
    """The `clips` of a split that have features in every stream of a recipe.

    `frames`: those that are read of a clip, over all streams, under the recipe's stride and max_frames.
    `sequences`: of all these clips, or of a sample of them; None without a tokenizer.
    """

    clips: int
    frames: LengthStatistics
    sequences: SequenceStatistics | None


def measure_recipe(
    root: Path, split: str, recipe: Recipe, prompts: PromptBuilder | None
) -> tuple[RecipeStatistics, np.ndarray]:
    """The figures of `split` of the dataset in `root` under `recipe`, and the positions of whole sequences (clips,).

    Clips are asked for their translation and see all of their gold context. A clip without features in a stream is
    left out, whatever the recipe says: training may refuse the split, but what the others hold is wanted.

    Raises:
        UserError: widths are not those of the recipe, or no clip has features.
    """
    opened = Split(open_index(root, split, recipe.streams), split, recipe.streams, missing="skip")
    kept = {stream.name: stream.kept_frame_counts() for stream in opened.streams}
    frames = LengthStatistics.of(sum(kept.values(), np.zeros(len(opened.index), np.int64))[opened.clips.rows])
    if prompts is None:
        return RecipeStatistics(len(opened.clips), frames, None), np.empty(0, np.int64)
    sequences, positions = _measure_sequences(opened, kept, recipe, prompts)
    return RecipeStatistics(len(opened.clips), frames, sequences), positions


def _measure_sequences(
    split: Split, kept: dict[str, np.ndarray], recipe: Recipe, prompts: PromptBuilder
) -> tuple[SequenceStatistics, np.ndarray]:
    bounded = ExampleBuilder(prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude)
    unbounded = ExampleBuilder(prompts, UNLIMITED, recipe.data.min_frames, recipe.context.prelude)
    whole: list[int] = []
    trained: list[Example] = []
    cannot_fit: list[str] = []
    indices = _sample_indices(len(split.clips))
    with progress(f"sequences of split {split.name}", len(indices)) as line:
        for clip in (split.clips[index] for index in indices):
            frames = {name: np.empty((counts[clip.row], 0), np.float16) for name, counts in kept.items()}
            context = split.gold_context(clip, recipe.context.window, recipe.context.prelude)
            instruction = translation_instruction(recipe.tasks, clip.translation)
            example = _build_or_none(bounded, clip, frames, instruction, context)
            if example is None:
                cannot_fit.append(clip.id)
            else:
                trained.append(example)
            if example is None or example.truncation.sentences:
                whole.append(unbounded.build(clip.id, frames, instruction, context).seq_len)
            else:
                whole.append(example.seq_len + example.truncation.frames)
            line.advance()
    sequences = SequenceStatistics(
        clips=len(whole),
        max_seq_len=recipe.data.max_seq_len,
        whole=LengthStatistics.of(np.array(whole)),
        cut=LengthStatistics.of(np.array([example.seq_len for example in trained])),
        thinned=sum(example.truncation.frames > 0 for example in trained),
        lose_context=sum(example.truncation.sentences > 0 for example in trained),
        cannot_fit=tuple(cannot_fit),
    )
    return sequences, np.array(whole)


def _build_or_none(
    builder: ExampleBuilder,
    clip: Clip,
    frames: dict[str, np.ndarray],
    instruction: Instruction,
    context: list[str],
) -> Example | None:
    """The example, or None where what it may not lose is longer than the budget."""
    try:
        return builder.build(clip.id, frames, instruction, context)
    except ClipTooLong:
        return None


def _sample_indices(clips: int) -> np.ndarray:
    """The places of all clips, or of `SAMPLE` of them in order: always the same ones."""
    if clips <= SAMPLE:
        return np.arange(clips)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(clips, SAMPLE, replace=False))
