"""The results as charts for papers, in PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from signllava_cli.evaluation.buckets import BucketTable, make_bucket_tables
from signllava_cli.evaluation.metrics.all_metrics import LABELS
from signllava_cli.evaluation.results import Evaluation, SystemResult
from signllava_cli.plotting import COLORS, DPI, escape_label, save_chart, style_axes

NUM_COLUMNS = 3
PANEL_WIDTH, ROW_HEIGHT = 3.2, 0.42  # inches; a row is a system in a panel
TITLE_SIZE = 10  # points
GAIN_BINS = np.arange(-100, 101, 10)


def draw_charts(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw `scores.png`, a `by-NAME.png` per grouping of clips, and `gains.png` into `folder`; returns the files.

    Charts without data are not drawn: those of groupings for yes/no tasks, gains of a single system.

    Raises:
        UserError: a file cannot be written.
    """
    charts = {"scores": _draw_score_chart(evaluation)}
    results = evaluation.results
    for table in make_bucket_tables(results):
        if table.name != "recording":
            charts[f"by-{table.name.replace('_', '-')}"] = _draw_bucket_chart(results, table)
    if any(result.analysis.get("gains") for result in results):
        charts["gains"] = _draw_gain_chart(results)
    files = []
    for name, chart in charts.items():
        files.append(folder / f"{name}.png")
        save_chart(chart, files[-1])
    return files


def _draw_score_chart(evaluation: Evaluation) -> Figure:
    """A panel per score: the score of each system, and its 95 % interval."""
    keys, results = evaluation.table_keys, evaluation.results
    num_rows = -(-len(keys) // NUM_COLUMNS)
    size = (PANEL_WIDTH * NUM_COLUMNS, num_rows * (ROW_HEIGHT * len(results) + 0.9))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    for number, key in enumerate(keys, start=1):
        axes = figure.add_subplot(num_rows, NUM_COLUMNS, number)
        for row, result in enumerate(results):
            if key not in result.scores:
                continue
            color = COLORS[row % len(COLORS)]
            if interval := result.intervals.get(key):
                axes.plot([interval.low, interval.high], [row, row], color=color, linewidth=2.5, alpha=0.45)
            axes.plot(result.scores[key], row, "o", color=color, markersize=5)
        axes.set_yticks(range(len(results)), [escape_label(result.system.name) for result in results])
        axes.set_ylim(len(results) - 0.5, -0.5)
        if (number - 1) % NUM_COLUMNS:
            axes.set_yticklabels([])
        style_axes(axes, LABELS[key], grid="x", size=TITLE_SIZE)
    if evaluation.config.num_samples:
        figure.supxlabel("bars: 95 % intervals", fontsize=9)
    return figure


def _draw_bucket_chart(results: Sequence[SystemResult], table: BucketTable) -> Figure:
    """chrF2 by bucket, a line per system; below, the number of clips."""
    figure = Figure(figsize=(max(4.5, 0.75 * len(table.rows) + 1.5), 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for index, result in enumerate(results):
        cells = [row_cells[index] for _, row_cells in table.rows]
        heights = [np.nan if cell is None else cell.chrf2 for cell in cells]
        color, label = COLORS[index % len(COLORS)], escape_label(result.system.name)
        axes.plot(range(len(heights)), heights, "o-", color=color, markersize=4, label=label)
    ticks = []
    for bucket, row_cells in table.rows:
        counts = sorted({cell.clips for cell in row_cells if cell})
        ticks.append(f"{bucket}\n" + " to ".join(f"{count:,}" for count in sorted({counts[0], counts[-1]})))
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("chrF2")
    style_axes(axes, f"chrF2 by {table.title}", grid="y", size=TITLE_SIZE)
    axes.set_xlabel(f"{table.title}; number of clips")
    if len(results) > 1:
        axes.legend(frameon=False)
    return figure


def _draw_gain_chart(results: Sequence[SystemResult]) -> Figure:
    """The gain of each clip over the baseline, in sentence chrF2, as a histogram per system."""
    figure = Figure(figsize=(6.0, 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for index, result in enumerate(results):
        gains = np.array(list(result.analysis.get("gains", {}).values()))
        if not len(gains):
            continue
        color = COLORS[index % len(COLORS)]
        percents = 100 * np.histogram(gains[gains != 0], GAIN_BINS)[0] / len(gains)
        label = f"{escape_label(result.system.name)} ({(gains == 0).mean():.0%} equal)"
        axes.stairs(percents, GAIN_BINS, color=color, fill=True, alpha=0.2)
        axes.stairs(percents, GAIN_BINS, color=color, linewidth=1.5, label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain in sentence chrF2")
    axes.set_ylabel("% of clips")
    style_axes(axes, f"Clips that differ from {escape_label(results[0].system.name)}", grid="y", size=TITLE_SIZE)
    axes.legend(frameon=False)
    return figure
