"""Statistics of a dataset: recordings, texts, durations, context and frames, computed from its indexes alone."""

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
from signllava_cli.prepare.dataset_folder import list_splits, list_streams, require_known
from signllava_cli.prepare.indexing import open_index
from signllava_cli.prepare.sequence_lengths import LengthStatistics, RecipeStatistics, measure_recipe
from signllava_cli.recipe import Recipe

PRECEDING = {
    "0": 0,
    "1": 1,
    "2": 2,
    "3": 3,
    "4-7": 4,
    "8-15": 8,
    "16+": 16,
}  # label -> minimum number of sentences
MAX_BINS = 12  # of a histogram
NO_CLIPS = np.empty(0, np.int64)


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of the translations of a split, in words of `data.words`.

    `are_characters`: most words are single characters, as in Chinese, which has no spaces. `vocabulary`: number of
    different words. `singletons`: words that occur once. `oov_rate`: share of the running words that are
    not in the vocabulary of train; None for train itself, and without a train split. `repeated_sentences`: different
    sentences that occur more than once. `keywords_per_clip`, `paraphrases_per_clip`: means.
    """

    words: int
    are_characters: bool
    vocabulary: int
    singletons: int
    oov_rate: float | None
    repeated_sentences: int
    keywords_per_clip: float
    paraphrases_per_clip: float


@dataclass(frozen=True)
class DurationStatistics:
    """`hours`: total of the clips of known duration, None without such clips; `clips_unknown`: number of others."""

    hours: float | None
    clips_unknown: int


@dataclass(frozen=True)
class StreamStatistics:
    """The numbers of frames per clip in the files of one stream, and the number of clips without frames."""

    frames: LengthStatistics
    clips_without: int


@dataclass(frozen=True)
class SplitStatistics:
    """The statistics of a split. `preceding`: label of `PRECEDING` -> number of clips."""

    recordings: int
    clips: int
    clips_per_recording: LengthStatistics
    durations: DurationStatistics
    texts: TextStatistics
    preceding: dict[str, int]
    streams: dict[str, StreamStatistics]
    with_recipe: RecipeStatistics | None


@dataclass(frozen=True)
class ClipLengths:
    """The integers of each clip, (clips,), behind the statistics of a split.

    `words`: of its sentence. `preceding`: sentences before it. `frames`: stream -> number of frames, of clips with
    frames. `sequences`: tokens of the untruncated sequence, of the clips of `RecipeStatistics.sequences`.
    """

    words: np.ndarray
    preceding: np.ndarray
    frames: dict[str, np.ndarray]
    sequences: np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Numbers of clips by frames: `clips[split][n]` clips have `bounds[n] <= frames < bounds[n + 1]`."""

    bounds: tuple[int, ...]
    clips: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """Split -> statistics, split -> lengths of clips, stream -> histogram."""

    statistics: dict[str, SplitStatistics]
    lengths: dict[str, ClipLengths]
    histograms: dict[str, Histogram]

    def to_dict(self) -> dict[str, Any]:
        """The statistics and histograms as JSON values."""
        return {
            "splits": {split: asdict(statistics) for split, statistics in self.statistics.items()},
            "histograms": {stream: asdict(histogram) for stream, histogram in self.histograms.items()},
        }


def describe_dataset(
    root: Path,
    splits: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    prompts: PromptBuilder | None = None,
    fps: float | None = None,
) -> Description:
    """Compute the statistics of `splits` (default: all) of the dataset in `root`.

    Args:
        recipe: describe its streams and, with `prompts`, the sequences of training.
        fps: frames per second of a clip's longest stream, for the duration of clips without times.

    Raises:
        UserError: the folder or a split is missing, or an error of `open_index` or `measure_recipe`.
    """
    existing = list_splits(root)
    chosen = list(dict.fromkeys(splits or existing))
    require_known("split", chosen, existing, str(root))
    streams = {split: recipe.streams if recipe else list_streams(root, split) for split in chosen}
    indexes = {split: open_index(root, split, streams[split]) for split in chosen}
    word_counts = {split: _count_words(index) for split, index in indexes.items()}
    train = recipe.data.train if recipe else "train"
    if train in existing and train not in chosen:
        word_counts[train] = _count_words(open_index(root, train, {}))
    statistics, lengths = {}, {}
    for split, index in indexes.items():
        frames = {name: index.frame_counts(name) for name in streams[split]}
        with_recipe, sequences = measure_recipe(root, split, recipe, prompts) if recipe else (None, NO_CLIPS)
        train_vocabulary = word_counts[train].vocabulary if train in word_counts and split != train else None
        recording_sizes = _recording_sizes(index)
        statistics[split] = SplitStatistics(
            recordings=len(recording_sizes),
            clips=len(index),
            clips_per_recording=LengthStatistics.of(recording_sizes),
            durations=_describe_durations(index, frames, fps),
            texts=_describe_texts(index, word_counts[split].vocabulary, train_vocabulary),
            preceding=_count_preceding(index),
            streams={name: _describe_frames(num_frames) for name, num_frames in frames.items()},
            with_recipe=with_recipe,
        )
        nonzero_frames = {name: num_frames[num_frames > 0] for name, num_frames in frames.items()}
        lengths[split] = ClipLengths(word_counts[split].per_clip, index.positions, nonzero_frames, sequences)
    return Description(statistics, lengths, _make_histograms(lengths))


@dataclass(frozen=True)
class _WordCounts:
    """The number of words of each sentence of a split, (clips,), and the count of each word."""

    per_clip: np.ndarray
    vocabulary: Counter[str]


def _count_words(index: Index) -> _WordCounts:
    per_clip, vocabulary = np.zeros(len(index), np.int64), Counter[str]()
    for row, text in enumerate(index.column("translation").to_pylist()):
        text_words = words(text)
        per_clip[row] = len(text_words)
        vocabulary.update(text_words)
    return _WordCounts(per_clip, vocabulary)


def _describe_texts(
    index: Index, vocabulary: Counter[str], train_vocabulary: Collection[str] | None
) -> TextStatistics:
    num_words = vocabulary.total()
    oov_rate = None
    if train_vocabulary is not None and num_words:
        oov_rate = sum(count for word, count in vocabulary.items() if word not in train_vocabulary) / num_words
    sentences = Counter(text.strip() for text in index.column("translation").to_pylist())
    return TextStatistics(
        words=num_words,
        are_characters=2 * sum(count for word, count in vocabulary.items() if is_character(word)) > num_words,
        vocabulary=len(vocabulary),
        singletons=sum(count == 1 for count in vocabulary.values()),
        oov_rate=oov_rate,
        repeated_sentences=sum(count > 1 for count in sentences.values()),
        keywords_per_clip=_mean_entries(index, "keywords"),
        paraphrases_per_clip=_mean_entries(index, "paraphrases"),
    )


def _mean_entries(index: Index, column: str) -> float:
    """The mean length of the lists of `column`."""
    return float(pc.mean(pc.list_value_length(index.column(column))).as_py())


def _recording_sizes(index: Index) -> np.ndarray:
    """The number of clips of each recording: its clips are consecutive, and the first has position 0."""
    return np.diff(np.flatnonzero(index.positions == 0), append=len(index))


def _describe_durations(index: Index, frames: Mapping[str, np.ndarray], fps: float | None) -> DurationStatistics:
    """The duration of a clip is unknown without a start and an end after it, unless `fps` is given."""
    seconds = index.column("end").to_numpy() - index.column("start").to_numpy()
    seconds = np.where(seconds > 0, seconds, 0.0)
    if fps and frames:
        seconds = np.where(seconds > 0, seconds, np.max(list(frames.values()), axis=0) / fps)
    is_known = seconds > 0
    return DurationStatistics(float(seconds.sum()) / 3600 if is_known.any() else None, int((~is_known).sum()))


def _describe_frames(frames: np.ndarray) -> StreamStatistics:
    return StreamStatistics(LengthStatistics.of(frames[frames > 0]), int((frames == 0).sum()))


def _count_preceding(index: Index) -> dict[str, int]:
    """Label of PRECEDING -> number of clips."""
    classes = np.digitize(index.positions, list(PRECEDING.values())) - 1
    return dict(zip(PRECEDING, np.bincount(classes, minlength=len(PRECEDING)).tolist(), strict=True))


def _make_histograms(lengths: Mapping[str, ClipLengths]) -> dict[str, Histogram]:
    """A histogram of each stream, with the same bins for all splits."""
    streams = dict.fromkeys(name for clip_lengths in lengths.values() for name in clip_lengths.frames)
    histograms = {}
    for name in streams:
        frames = {
            split: clip_lengths.frames[name] for split, clip_lengths in lengths.items() if name in clip_lengths.frames
        }
        bounds = _bin_bounds(np.concatenate(list(frames.values())))
        clips = {split: tuple(np.histogram(num_frames, bounds)[0].tolist()) for split, num_frames in frames.items()}
        histograms[name] = Histogram(bounds, clips)
    return histograms


def _bin_bounds(lengths: np.ndarray) -> tuple[int, ...]:
    """The bounds of at most MAX_BINS bins: they begin at round numbers, and the last bin holds the long tail."""
    if not len(lengths):
        return (0, 1)
    low, p99 = int(lengths.min()), int(np.percentile(lengths, 99, method="inverted_cdf"))
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    step = next(step for step in steps if p99 // step - low // step + 2 <= MAX_BINS)
    starts = range(low // step * step, int(lengths.max()) + 1, step)
    return (*starts[: p99 // step - low // step + 2], int(lengths.max()) + 1)
