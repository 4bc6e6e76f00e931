"""What a dataset holds, in figures: recordings, texts, durations, context and frames. Only its indexes are read."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from signllava_cli.data.index import Index
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.words import is_character, words
from signllava_cli.errors import UserError
from signllava_cli.prepare.dataset_folder import list_splits, list_streams
from signllava_cli.prepare.indexing import open_index
from signllava_cli.prepare.sequence_lengths import LengthStatistics, RecipeStatistics, measure_recipe
from signllava_cli.recipe import Recipe

PRECEDING = {"0": 0, "1": 1, "2": 2, "3": 3, "4-7": 4, "8-15": 8, "16+": 16}  # label: fewest sentences
BINS = 12  # of a histogram, at most
NO_CLIPS = np.empty(0, np.int64)


@dataclass(frozen=True)
class TextStatistics:
    """The translations of a split, in words as `words.py` counts them.

    `are_characters`: most of the words are single characters, as in Chinese: the texts have no spaces between words.
    `once`: words of the vocabulary that occur once. `unseen`: the share of the running words that train has not;
    None for train itself, and where there is no train. `repeated`: different sentences that occur more than once.
    `keywords` and `paraphrases`: how many a clip has on average.
    """

    words: int
    are_characters: bool
    vocabulary: int
    once: int
    unseen: float | None
    repeated: int
    keywords: float
    paraphrases: float


@dataclass(frozen=True)
class DurationStatistics:
    """The `hours` of the clips whose duration is known, None where there are none; and how many others there are."""

    hours: float | None
    clips_unknown: int


@dataclass(frozen=True)
class StreamStatistics:
    """The frames that the clips of a split have in the files of one stream, and how many clips have none."""

    frames: LengthStatistics
    clips_without: int


@dataclass(frozen=True)
class SplitStatistics:
    """The figures of a split. `preceding`: clips by the number of sentences before them in their recording."""

    recordings: int
    clips: int
    clips_of_recording: LengthStatistics
    durations: DurationStatistics
    texts: TextStatistics
    preceding: dict[str, int]
    streams: dict[str, StreamStatistics]
    under_recipe: RecipeStatistics | None


@dataclass(frozen=True)
class ClipLengths:
    """What the figures of a split sum up: a whole number for each clip, (clips,).

    The `words` of its sentence, the sentences `preceding` it, its `frames` in each stream (clips that have some),
    and the positions of its whole sequence (clips of `UnderRecipe.sequences`).
    """

    words: np.ndarray
    preceding: np.ndarray
    frames: dict[str, np.ndarray]
    sequences: np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Clips by their frames: `clips[split][n]` have `bounds[n]` or more, but fewer than `bounds[n + 1]`."""

    bounds: tuple[int, ...]
    clips: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """Of each split the figures and what they sum up; of each stream a histogram."""

    figures: dict[str, SplitStatistics]
    lengths: dict[str, ClipLengths]
    histograms: dict[str, Histogram]

    def to_dict(self) -> dict[str, Any]:
        """The figures and histograms as plain JSON values."""
        return {
            "splits": {split: asdict(figures) for split, figures in self.figures.items()},
            "histograms": {stream: asdict(histogram) for stream, histogram in self.histograms.items()},
        }


def describe_dataset(
    root: Path,
    splits: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    prompts: PromptBuilder | None = None,
    fps: float | None = None,
) -> Description:
    """Describe `splits` (default: all) of the dataset in `root`.

    Args:
        recipe: describe its streams and, with `prompts`, the sequences that training makes of them.
        fps: frames per second of a clip's longest stream, for the duration of clips that have no times.

    Raises:
        UserError: there is no such folder or split, or what `open_index` and `measure_under_recipe` refuse.
    """
    there = list_splits(root)
    chosen = list(dict.fromkeys(splits or there))
    if unknown := [split for split in chosen if split not in there]:
        raise UserError(f"No split {unknown[0]} in {root}; splits there: {', '.join(there)}.")
    streams = {split: recipe.streams if recipe else list_streams(root, split) for split in chosen}
    indexes = {split: open_index(root, split, streams[split]) for split in chosen}
    spoken = {split: _count_words(index) for split, index in indexes.items()}
    train = recipe.data.train if recipe else "train"
    if train in there and train not in chosen:
        spoken[train] = _count_words(open_index(root, train, {}))
    figures, lengths = {}, {}
    for split, index in indexes.items():
        frames = {name: index.frame_counts(name) for name in streams[split]}
        under_recipe, sequences = measure_recipe(root, split, recipe, prompts) if recipe else (None, NO_CLIPS)
        known = spoken[train].vocabulary if train in spoken and split != train else None
        sizes = _recording_sizes(index)
        figures[split] = SplitStatistics(
            recordings=len(sizes),
            clips=len(index),
            clips_of_recording=LengthStatistics.of(sizes),
            durations=_durations(index, frames, fps),
            texts=_texts(index, spoken[split].vocabulary, known),
            preceding=_preceding(index),
            streams={name: _stream_frames(its) for name, its in frames.items()},
            under_recipe=under_recipe,
        )
        has_some = {name: its[its > 0] for name, its in frames.items()}
        lengths[split] = ClipLengths(spoken[split].of_clips, index.positions, has_some, sequences)
    return Description(figures, lengths, _histograms(lengths))


@dataclass(frozen=True)
class _WordCounts:
    """How many words each sentence of a split has, (clips,), and how often each word occurs in them."""

    of_clips: np.ndarray
    vocabulary: Counter[str]


def _count_words(index: Index) -> _WordCounts:
    of_clips, vocabulary = np.zeros(len(index), np.int64), Counter[str]()
    for row, text in enumerate(index.column("translation").to_pylist()):
        said = words(text)
        of_clips[row] = len(said)
        vocabulary.update(said)
    return _WordCounts(of_clips, vocabulary)


def _texts(index: Index, vocabulary: Counter[str], known: Collection[str] | None) -> TextStatistics:
    """`known`: the vocabulary that the words of this one are looked up in, if they are."""
    said = vocabulary.total()
    unseen = None
    if known is not None and said:
        unseen = sum(times for word, times in vocabulary.items() if word not in known) / said
    sentences = Counter(text.strip() for text in index.column("translation").to_pylist())
    return TextStatistics(
        words=said,
        are_characters=2 * sum(times for word, times in vocabulary.items() if is_character(word)) > said,
        vocabulary=len(vocabulary),
        once=sum(times == 1 for times in vocabulary.values()),
        unseen=unseen,
        repeated=sum(times > 1 for times in sentences.values()),
        keywords=_mean_entries(index, "keywords"),
        paraphrases=_mean_entries(index, "paraphrases"),
    )


def _mean_entries(index: Index, column: str) -> float:
    """How many entries the lists of `column` have on average."""
    return float(pc.mean(pc.list_value_length(index.column(column))).as_py())


def _recording_sizes(index: Index) -> np.ndarray:
    """The number of clips of each recording: its clips lie together, the first at position 0."""
    return np.diff(np.flatnonzero(index.positions == 0), append=len(index))


def _durations(index: Index, frames: Mapping[str, np.ndarray], fps: float | None) -> DurationStatistics:
    """A clip that does not end after its start has no duration, nor has one without a start or an end."""
    seconds = index.column("end").to_numpy() - index.column("start").to_numpy()
    seconds = np.where(seconds > 0, seconds, 0.0)
    if fps and frames:
        seconds = np.where(seconds > 0, seconds, np.max(list(frames.values()), axis=0) / fps)
    known = seconds > 0
    return DurationStatistics(float(seconds.sum()) / 3600 if known.any() else None, int((~known).sum()))


def _stream_frames(frames: np.ndarray) -> StreamStatistics:
    return StreamStatistics(LengthStatistics.of(frames[frames > 0]), int((frames == 0).sum()))


def _preceding(index: Index) -> dict[str, int]:
    """Clips by the number of sentences before them, under the labels of PRECEDING."""
    classes = np.digitize(index.positions, list(PRECEDING.values())) - 1
    return dict(zip(PRECEDING, np.bincount(classes, minlength=len(PRECEDING)).tolist(), strict=True))


def _histograms(lengths: Mapping[str, ClipLengths]) -> dict[str, Histogram]:
    """A histogram of each stream, with the same classes for all splits."""
    streams = dict.fromkeys(name for its in lengths.values() for name in its.frames)
    histograms = {}
    for name in streams:
        frames = {split: its.frames[name] for split, its in lengths.items() if name in its.frames}
        bounds = _bounds(np.concatenate(list(frames.values())))
        clips = {split: tuple(np.histogram(its, bounds)[0].tolist()) for split, its in frames.items()}
        histograms[name] = Histogram(bounds, clips)
    return histograms


def _bounds(lengths: np.ndarray) -> tuple[int, ...]:
    """The bounds of at most BINS classes: they begin at round numbers, and the last one takes in a long tail."""
    if not len(lengths):
        return (0, 1)
    low, nearly_all = int(lengths.min()), int(np.percentile(lengths, 99, method="inverted_cdf"))
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    step = next(step for step in steps if nearly_all // step - low // step + 2 <= BINS)
    starts = range(low // step * step, int(lengths.max()) + 1, step)
    return (*starts[: nearly_all // step - low // step + 2], int(lengths.max()) + 1)
