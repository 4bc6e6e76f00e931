"""The curves of one or several runs, in one PNG file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from signllava_cli.plotting import COLORS, DPI, escape_label, save_chart, style_axes
from signllava_cli.training.metrics_log import RunMetrics, exponential_moving_average

WIDTH, HEIGHT = 6.0, 3.0  # inches of one panel
COLUMNS = 2
LINE_STYLES: tuple[Literal["-", ":"], ...] = ("-", ":")  # of the figures in one panel; a run has its color
MAX_MARKED_POINTS = 40  # a curve of so few points shows each


@dataclass(frozen=True)
class Panel:
    """One chart: the `figures` of metrics.jsonl in it; a noisy one is drawn faint, under its moving average."""

    title: str
    figures: tuple[str, ...]
    is_noisy: bool = False
    is_logarithmic: bool = False


PANELS = (
    Panel("Loss a target token", ("loss",), is_noisy=True),
    Panel("Dev loss a target token", ("dev_loss",)),
    Panel("Dev BLEU", ("dev_bleu",)),
    Panel("Learning rate", ("learning_rate", "projector_learning_rate")),
    Panel("Gradient norm", ("gradient_norm",), is_noisy=True, is_logarithmic=True),
    Panel("Tokens a second", ("tokens_per_second",), is_noisy=True),
)


def draw_runs(records: Mapping[str, RunMetrics], smooth: float, file: Path) -> None:
    """Draw the curves of all `records` (by the run's name), each run in its color.

    What no run has recorded is not drawn. `smooth` is the weight of the past in the moving averages, in [0, 1).

    Raises:
        UserError: the file cannot be written.
    """
    recorded = {name for record in records.values() for name in record.curves}
    panels = [panel for panel in PANELS if recorded.intersection(panel.figures)]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.5), dpi=DPI, layout="constrained")
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, COLUMNS, number), panel, records, smooth)
    lines = [Line2D([], [], color=COLORS[number % len(COLORS)]) for number in range(len(records))]
    figure.legend(lines, [escape_label(name) for name in records], loc="outside upper left", ncols=4, frameon=False)
    save_chart(figure, file)


def _draw_panel(axes: Axes, panel: Panel, records: Mapping[str, RunMetrics], smooth: float) -> None:
    figures = [name for name in panel.figures if any(name in record.curves for record in records.values())]
    for name, line in zip(figures, LINE_STYLES, strict=False):
        for number, record in enumerate(records.values()):
            curve = record.curves.get(name, {})
            steps, values = list(curve), list(curve.values())
            color = COLORS[number % len(COLORS)]
            marker = "." if len(steps) <= MAX_MARKED_POINTS else None
            if panel.is_noisy:
                axes.plot(steps, values, color=color, linestyle=line, linewidth=0.8, marker=marker, alpha=0.3)
                values, marker = exponential_moving_average(values, smooth), None
            axes.plot(steps, values, color=color, linestyle=line, linewidth=1.5, marker=marker)
    if len(figures) > 1:
        lines = [Line2D([], [], color="black", linestyle=line) for line in LINE_STYLES]
        axes.legend(lines, figures, frameon=False)
    if panel.is_logarithmic and axes.dataLim.ymin > 0:
        axes.set_yscale("log")
    style_axes(axes, panel.title, grid="both")
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
