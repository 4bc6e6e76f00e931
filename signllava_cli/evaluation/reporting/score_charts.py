"""An evaluation as charts for papers, in PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from signllava_cli.evaluation.buckets import BucketTable, bucket_tables
from signllava_cli.evaluation.scoring import Evaluation, SystemResult
from signllava_cli.plotting import COLORS, DPI, escape_label, save_chart, style_axes

COLUMNS = 3
WIDTH, ROW = 3.2, 0.42  # inches of a panel, and of a system in it
TITLE = 10  # points
GAIN_BINS = np.arange(-100, 101, 10)


def draw_charts(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw `scores.png`, `by-KIND.png` for each kind of clip, and `gains.png` into `folder`; which were drawn.

    What there is nothing of is not drawn: kinds of clip for yes/no tasks, gains of a system that is alone.

    Raises:
        UserError: a file cannot be written.
    """
    drawn = {"scores": _score_chart(evaluation)}
    scored = evaluation.scored
    for kind in bucket_tables(scored):
        if kind.name != "recording":
            drawn[f"by-{kind.name.replace('_', '-')}"] = _bucket_chart(scored, kind)
    if any(each.analysis.get("gains") for each in scored):
        drawn["gains"] = _gain_chart(scored)
    files = []
    for name, figure in drawn.items():
        files.append(folder / f"{name}.png")
        save_chart(figure, files[-1])
    return files


def _score_chart(evaluation: Evaluation) -> Figure:
    """A panel a figure: of each system the score, and its 95 % interval."""
    keys, labels, scored = evaluation.shown(), evaluation.labels, evaluation.scored
    rows = -(-len(keys) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, rows * (ROW * len(scored) + 0.9)), dpi=DPI, layout="constrained")
    for number, key in enumerate(keys, start=1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        for index, each in enumerate(scored):
            if key not in each.figures:
                continue
            color = COLORS[index % len(COLORS)]
            if interval := each.intervals.get(key):
                axes.plot([interval.low, interval.high], [index, index], color=color, linewidth=2.5, alpha=0.45)
            axes.plot(each.figures[key], index, "o", color=color, markersize=5)
        axes.set_yticks(range(len(scored)), [escape_label(each.system.name) for each in scored])
        axes.set_ylim(len(scored) - 0.5, -0.5)
        if (number - 1) % COLUMNS:
            axes.set_yticklabels([])
        style_axes(axes, labels[key], grid="x", size=TITLE)
    if evaluation.scoring.samples:
        figure.supxlabel("bars: 95 % intervals", fontsize=9)
    return figure


def _bucket_chart(scored: Sequence[SystemResult], kind: BucketTable) -> Figure:
    """chrF2 of the clips of each kind, a line a system; below, how many clips there are."""
    figure = Figure(figsize=(max(4.5, 0.75 * len(kind.rows) + 1.5), 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for index, each in enumerate(scored):
        cells_of = [cells[index] for _, cells in kind.rows]
        heights = [np.nan if cell is None else cell.chrf2 for cell in cells_of]
        color = COLORS[index % len(COLORS)]
        axes.plot(range(len(heights)), heights, "o-", color=color, markersize=4, label=escape_label(each.system.name))
    ticks = []
    for bucket, cells in kind.rows:
        counts = sorted({cell.clips for cell in cells if cell})
        ticks.append(f"{bucket}\n" + " to ".join(f"{count:,}" for count in sorted({counts[0], counts[-1]})))
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("chrF2")
    style_axes(axes, f"chrF2 by {kind.title}", grid="y", size=TITLE)
    axes.set_xlabel(f"{kind.title}; number of clips")
    if len(scored) > 1:
        axes.legend(frameon=False)
    return figure


def _gain_chart(scored: Sequence[SystemResult]) -> Figure:
    """What each clip gains or loses against the first system, in sentence chrF2."""
    figure = Figure(figsize=(6.0, 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for index, each in enumerate(scored):
        gains = np.array(list(each.analysis.get("gains", {}).values()))
        if not len(gains):
            continue
        color = COLORS[index % len(COLORS)]
        shares = np.histogram(gains[gains != 0], GAIN_BINS)[0] / len(gains)
        equal = f"{(gains == 0).mean():.0%} equal"
        axes.stairs(100 * shares, GAIN_BINS, color=color, fill=True, alpha=0.2)
        axes.stairs(
            100 * shares, GAIN_BINS, color=color, linewidth=1.5, label=f"{escape_label(each.system.name)} ({equal})"
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("sentence chrF2 gained")
    axes.set_ylabel("% of clips")
    style_axes(axes, f"Clips that differ from {escape_label(scored[0].system.name)}", grid="y", size=TITLE)
    axes.legend(frameon=False)
    return figure
