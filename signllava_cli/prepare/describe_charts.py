"""The lengths of a dataset's clips as histograms, in PNG files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from signllava_cli.plotting import COLORS, DPI, save_chart, style_axes
from signllava_cli.prepare.describe import Description

WIDTH, HEIGHT = 8.0, 3.4  # inches of one chart
BINS = 40  # of a chart, at most
VISIBLE_PERCENTILE = 99.5  # percentile of the lengths where a chart ends


def draw_charts(description: Description, folder: Path) -> list[Path]:
    """Draw `words.png`, `preceding.png`, `frames.png` (a chart a stream) and `sequences.png` into `folder`.

    What there is nothing of is not drawn. All splits share a chart, each as shares of its own clips.

    Raises:
        UserError: a file cannot be written.
    """
    lengths = description.lengths
    files = [folder / "words.png", folder / "preceding.png"]
    are_characters = any(figures.texts.are_characters for figures in description.figures.values())
    words = {"Sentences by length": {split: its.words for split, its in lengths.items()}}
    save_chart(_length_charts(words, "characters" if are_characters else "words"), files[0])
    save_chart(_preceding_chart(description), files[1])
    frames = {
        f"Clips by length in {name}": {
            split: its.frames[name] for split, its in lengths.items() if name in its.frames
        }
        for name in description.histograms
    }
    if any(len(its) for by_split in frames.values() for its in by_split.values()):
        files.append(folder / "frames.png")
        save_chart(_length_charts(frames, "frames"), files[-1])
    sequences = {split: its.sequences for split, its in lengths.items()}
    if any(map(len, sequences.values())):
        files.append(folder / "sequences.png")
        chart = _length_charts({"Sequences by length under the recipe, uncut": sequences}, "positions")
        _mark_max_seq_len(chart.axes[0], description)
        save_chart(chart, files[-1])
    return files


def _length_charts(lengths: Mapping[str, Mapping[str, np.ndarray]], unit: str) -> Figure:
    """A histogram for each title: of each split the share of its clips by length."""
    figure = Figure(figsize=(WIDTH, HEIGHT * len(lengths)), dpi=DPI, layout="constrained")
    for number, (title, by_split) in enumerate(lengths.items(), start=1):
        axes = figure.add_subplot(len(lengths), 1, number)
        pooled = np.concatenate(list(by_split.values()))
        bounds, unseen = _bins(pooled) if len(pooled) else (np.array([0, 1]), "")
        for color, (split, its) in zip(COLORS * len(by_split), by_split.items(), strict=False):
            shares = np.histogram(its, bounds)[0] / max(1, len(its))
            axes.stairs(shares, bounds, color=color, fill=True, alpha=0.2)
            axes.stairs(shares, bounds, color=color, linewidth=1.5, label=f"{split} ({len(its):,} clips)")
        _style_length_axes(axes, title, unit + unseen)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _bins(lengths: np.ndarray) -> tuple[np.ndarray, str]:
    """The bounds of at most BINS bins, each around as many whole numbers; and, in words, what lies beyond them."""
    low, high = int(lengths.min()), int(np.percentile(lengths, VISIBLE_PERCENTILE, method="inverted_cdf"))
    step = -(-(high + 1 - low) // BINS)
    bounds = np.arange(low, high + step + 1, step) - 0.5
    beyond = int((lengths > bounds[-1]).sum())
    return bounds, f" ({beyond:,} clips are longer, up to {lengths.max():,})" if beyond else ""


def _preceding_chart(description: Description) -> Figure:
    """Bars side by side: of each split the share of its clips by sentences before them."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(description.figures)
    for number, (split, its) in enumerate(description.figures.items()):
        indices = np.arange(len(its.preceding)) + (number - (len(description.figures) - 1) / 2) * width
        shares = np.array(list(its.preceding.values())) / its.clips
        axes.bar(indices, shares, width, color=COLORS[number % len(COLORS)], label=f"{split} ({its.clips:,} clips)")
        axes.set_xticks(range(len(its.preceding)), list(its.preceding))
    _style_length_axes(axes, "Clips by the sentences before them in their recording", "sentences before")
    return figure


def _mark_max_seq_len(axes: Axes, description: Description) -> None:
    """A line at the recipe's max_positions, where the axis reaches it."""
    under_recipe = (figures.under_recipe for figures in description.figures.values())
    bound = next(its.sequences.max_seq_len for its in under_recipe if its and its.sequences)
    if bound <= axes.get_xlim()[1]:
        axes.axvline(bound, color="black", linestyle="--", linewidth=1, label=f"data.max_seq_len = {bound:,}")
        _legend(axes)


def _style_length_axes(axes: Axes, title: str, unit: str) -> None:
    style_axes(axes, title, grid="y")
    axes.set_xlabel(unit)
    axes.set_ylabel("share of clips")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
