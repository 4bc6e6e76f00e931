"""Draws histograms of the lengths of a dataset's clips as PNG files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from signllava_cli.plotting import COLORS, DPI, save_chart, style_axes
from signllava_cli.prepare.describe import Description

WIDTH, HEIGHT = 8.0, 3.4  # of one chart, in inches
MAX_BINS = 40  # of a chart
VISIBLE_PERCENTILE = 99.5  # a chart ends at this percentile of the lengths


def draw_charts(description: Description, folder: Path) -> list[Path]:
    """Draw `words.png`, `preceding.png`, `frames.png` (a chart a stream) and `sequences.png` into `folder`.

    A chart without data is not drawn. All splits share a chart; values are shares of the clips of a split.

    Raises:
        UserError: a file cannot be written.
    """
    lengths = description.lengths
    files = [folder / "words.png", folder / "preceding.png"]
    are_characters = any(split.texts.are_characters for split in description.statistics.values())
    words = {"Sentences by length": {split: clip_lengths.words for split, clip_lengths in lengths.items()}}
    save_chart(_draw_lengths(words, "characters" if are_characters else "words"), files[0])
    save_chart(_draw_preceding(description), files[1])
    frames = {
        f"Clips by length in {name}": {
            split: clip_lengths.frames[name] for split, clip_lengths in lengths.items() if name in clip_lengths.frames
        }
        for name in description.histograms
    }
    if any(len(num_frames) for by_split in frames.values() for num_frames in by_split.values()):
        files.append(folder / "frames.png")
        save_chart(_draw_lengths(frames, "frames"), files[-1])
    sequences = {split: clip_lengths.sequences for split, clip_lengths in lengths.items()}
    if any(map(len, sequences.values())):
        files.append(folder / "sequences.png")
        chart = _draw_lengths({"Untruncated sequences by length": sequences}, "tokens")
        _mark_max_seq_len(chart.axes[0], description)
        save_chart(chart, files[-1])
    return files


def _draw_lengths(lengths: Mapping[str, Mapping[str, np.ndarray]], unit: str) -> Figure:
    """A histogram for each title: the share of clips of each split by length."""
    figure = Figure(figsize=(WIDTH, HEIGHT * len(lengths)), dpi=DPI, layout="constrained")
    for number, (title, by_split) in enumerate(lengths.items(), start=1):
        axes = figure.add_subplot(len(lengths), 1, number)
        pooled = np.concatenate(list(by_split.values()))
        bounds, suffix = _bin_bounds_and_tail(pooled) if len(pooled) else (np.array([0, 1]), "")
        for color, (split, values) in zip(COLORS * len(by_split), by_split.items(), strict=False):
            shares = np.histogram(values, bounds)[0] / max(1, len(values))
            axes.stairs(shares, bounds, color=color, fill=True, alpha=0.2)
            axes.stairs(shares, bounds, color=color, linewidth=1.5, label=f"{split} ({len(values):,} clips)")
        _style_length_axes(axes, title, unit + suffix)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _bin_bounds_and_tail(lengths: np.ndarray) -> tuple[np.ndarray, str]:
    """The bounds of at most MAX_BINS bins of equally many integers, and a text on the lengths beyond them."""
    low, high = int(lengths.min()), int(np.percentile(lengths, VISIBLE_PERCENTILE, method="inverted_cdf"))
    step = -(-(high + 1 - low) // MAX_BINS)
    bounds = np.arange(low, high + step + 1, step) - 0.5
    num_beyond = int((lengths > bounds[-1]).sum())
    return bounds, f" ({num_beyond:,} clips are longer, up to {lengths.max():,})" if num_beyond else ""


def _draw_preceding(description: Description) -> Figure:
    """Bars side by side: the share of clips of each split by the number of sentences before them."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(description.statistics)
    for number, (split, statistics) in enumerate(description.statistics.items()):
        bar_centers = np.arange(len(statistics.preceding)) + (number - (len(description.statistics) - 1) / 2) * width
        shares = np.array(list(statistics.preceding.values())) / statistics.clips
        axes.bar(
            bar_centers,
            shares,
            width,
            color=COLORS[number % len(COLORS)],
            label=f"{split} ({statistics.clips:,} clips)",
        )
        axes.set_xticks(range(len(statistics.preceding)), list(statistics.preceding))
    _style_length_axes(axes, "Clips by the sentences before them in their recording", "sentences before")
    return figure


def _mark_max_seq_len(axes: Axes, description: Description) -> None:
    """Draw a line at the recipe's max_seq_len, if the axis reaches it."""
    with_recipe = (split.with_recipe for split in description.statistics.values())
    max_seq_len = next(split.sequences.max_seq_len for split in with_recipe if split and split.sequences)
    if max_seq_len <= axes.get_xlim()[1]:
        axes.axvline(
            max_seq_len, color="black", linestyle="--", linewidth=1, label=f"data.max_seq_len = {max_seq_len:,}"
        )
        _add_legend(axes)


def _style_length_axes(axes: Axes, title: str, unit: str) -> None:
    style_axes(axes, title, grid="y")
    axes.set_xlabel(unit)
    axes.set_ylabel("share of clips")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
