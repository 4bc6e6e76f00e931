"""Draw the curves of one or several runs into one PNG file."""

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

WIDTH, HEIGHT = 6.0, 3.0  # size of one panel in inches
COLUMNS = 2
LINE_STYLES: tuple[Literal["-", ":"], ...] = ("-", ":")  # one for each metric of a panel; each run has its own color
MAX_MARKED_POINTS = 40  # a curve with at most this many points shows each as a dot


@dataclass(frozen=True)
class Panel:
    """One chart of `metrics` of metrics.jsonl; a noisy one also shows the moving average, over faint values."""

    title: str
    metrics: tuple[str, ...]
    is_noisy: bool = False
    is_logarithmic: bool = False


PANELS = (
    Panel("Loss per target token", ("loss",), is_noisy=True),
    Panel("Dev loss per target token", ("dev_loss",)),
    Panel("Dev BLEU", ("dev_bleu",)),
    Panel("Learning rate", ("learning_rate", "projector_learning_rate")),
    Panel("Gradient norm", ("gradient_norm",), is_noisy=True, is_logarithmic=True),
    Panel("Tokens per second", ("tokens_per_second",), is_noisy=True),
)


def draw_runs(runs: Mapping[str, RunMetrics], smooth: float, file: Path) -> None:
    """Draw the curves of all `runs` (name -> metrics), each run in its own color.

    A panel whose metrics no run has is omitted.

    Args:
        smooth: the weight of the past in the moving averages, in [0, 1).

    Raises:
        UserError: the file cannot be written.
    """
    available = {name for run in runs.values() for name in run.curves}
    panels = [panel for panel in PANELS if available.intersection(panel.metrics)]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.5), dpi=DPI, layout="constrained")
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, COLUMNS, number), panel, runs, smooth)
    lines = [Line2D([], [], color=COLORS[number % len(COLORS)]) for number in range(len(runs))]
    figure.legend(lines, [escape_label(name) for name in runs], loc="outside upper left", ncols=4, frameon=False)
    save_chart(figure, file)


def _draw_panel(axes: Axes, panel: Panel, runs: Mapping[str, RunMetrics], smooth: float) -> None:
    metrics = [name for name in panel.metrics if any(name in run.curves for run in runs.values())]
    for name, line in zip(metrics, LINE_STYLES, strict=False):
        for number, run in enumerate(runs.values()):
            curve = run.curves.get(name, {})
            steps, values = list(curve), list(curve.values())
            color = COLORS[number % len(COLORS)]
            marker = "." if len(steps) <= MAX_MARKED_POINTS else None
            if panel.is_noisy:
                axes.plot(steps, values, color=color, linestyle=line, linewidth=0.8, marker=marker, alpha=0.3)
                values, marker = exponential_moving_average(values, smooth), None
            axes.plot(steps, values, color=color, linestyle=line, linewidth=1.5, marker=marker)
    if len(metrics) > 1:
        lines = [Line2D([], [], color="black", linestyle=line) for line in LINE_STYLES]
        axes.legend(lines, metrics, frameon=False)
    if panel.is_logarithmic and axes.dataLim.ymin > 0:
        axes.set_yscale("log")
    style_axes(axes, panel.title, grid="both")
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
