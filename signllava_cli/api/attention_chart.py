"""The picture of an answer's attention: a heat map of words and frames per stream, and the shares of each word."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from signllava_cli.plotting import COLORS, DPI, escape_label, style_axes

WIDTH, SHARES_WIDTH = 10.0, 0.32  # inches; the shares have this part of it
ROW_HEIGHT, PANEL_HEIGHT = 0.18, 0.8  # inches of a word, and of a panel besides its words
TEXT_COLORS = {"context": "#444444", "answer": "#888888", "instructions": "#cccccc"}


class HeatMap(Protocol):
    """What is drawn of a `StreamAttention`."""

    @property
    def weights(self) -> np.ndarray:
        """(W, E)"""

    @property
    def spans(self) -> np.ndarray:
        """(E, 2)"""


def attention_chart(words: Sequence[str], streams: Mapping[str, HeatMap], shares: Mapping[str, np.ndarray]) -> Figure:
    """The figure of an `AnswerAttention`; `signllava_cli.plotting.save_chart` writes it.

    Each heat map has a scale of its own, because most attention is often on one stream, or on text.
    """
    labels = [escape_label(word) for word in words]
    height = len(streams) * (PANEL_HEIGHT + ROW_HEIGHT * len(words)) + 0.6
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(len(streams), 2, width_ratios=[1 - SHARES_WIDTH, SHARES_WIDTH])
    for number, (name, stream) in enumerate(streams.items()):
        _draw_stream(figure.add_subplot(grid[number, 0]), name, stream, labels)
    axes = figure.add_subplot(grid[:, 1])
    _draw_shares(axes, shares, labels)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=5, frameon=False, fontsize=8)
    return figure


def _draw_stream(axes: Axes, name: str, stream: HeatMap, labels: Sequence[str]) -> None:
    edges = np.array([*stream.spans[:, 0], stream.spans[-1, 1]])  # (E + 1,)
    rows = np.arange(len(labels) + 1) - 0.5
    highest = float(stream.weights.max())
    axes.pcolormesh(edges, rows, stream.weights, cmap="Blues", vmin=0.0, vmax=highest or 1.0)
    axes.set_title(f"{escape_label(name)}: darkest is {highest:.2%}", loc="left", fontweight="bold", fontsize=9)
    _label_words(axes, labels)
    axes.set_xlabel("frame", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_shares(axes: Axes, shares: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    rows, ends = np.arange(len(labels)), np.zeros(len(labels))
    stream_colors = cycle(COLORS)
    for name, share in shares.items():
        color = TEXT_COLORS.get(name) or next(stream_colors)
        axes.barh(rows, share, left=ends, color=color, label=escape_label(name), height=0.8)
        ends += share
    _label_words(axes, labels)
    style_axes(axes, "Share of the attention", grid="x", size=9)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _label_words(axes: Axes, labels: Sequence[str]) -> None:
    """One row for each word, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(labelsize=8)
