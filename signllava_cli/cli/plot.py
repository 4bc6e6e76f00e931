"""`signllava plot`: draw the curves of runs into a PNG file, and print the loss in the terminal."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signllava_cli.errors import UserError, require_extra

if TYPE_CHECKING:
    from signllava_cli.training.metrics_log import RunMetrics

COLUMNS, ROWS = 60, 6  # size of a chart in the terminal, in characters


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/pretrain.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PNG file to write.")] = Path("plot.png"),
    smooth: Annotated[
        float,
        typer.Option(
            min=0, max=0.999, help="Weight of the past in the moving average of noisy curves; 0: no average."
        ),
    ] = 0.9,
) -> None:
    """Draw loss, dev scores, learning rate, gradient norm and throughput of one or several runs."""
    require_extra("plot", "signllava plot", "matplotlib")
    from signllava_cli.console import info, warning
    from signllava_cli.training.metrics_log import read_runs
    from signllava_cli.training.run_plots import draw_runs

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: only PNG files can be written; use a name that ends in .png.")
    metrics_by_run = read_runs(runs)
    for name, metrics in metrics_by_run.items():
        if metrics.num_damaged:
            warning(f"{name}: skipped damaged lines of metrics.jsonl: {metrics.num_damaged}")
    draw_runs(metrics_by_run, smooth, out)
    for name, metrics in metrics_by_run.items():
        _print_loss(name, metrics, smooth)
    _print_summary(metrics_by_run)
    info(f"all curves in {out}")


def _print_loss(name: str, metrics: "RunMetrics", smooth: float) -> None:
    """Print the smoothed loss as a chart of block characters."""
    from signllava_cli.console import print_line, stdout_console
    from signllava_cli.training.metrics_log import exponential_moving_average

    curve = metrics.curves.get("loss", {})
    averages = exponential_moving_average(list(curve.values()), smooth)
    values = [value for value in averages if not math.isnan(value)]
    if not values:
        return
    width = min(COLUMNS, len(values))
    values = [values[(column + 1) * len(values) // width - 1] for column in range(width)]
    low, high = min(values), max(values)
    levels = [(value - low) / ((high - low) or 1.0) * ROWS for value in values]
    blocks = " #" if stdout_console.options.ascii_only else " ▁▂▃▄▅▆▇█"
    print_line(f"{name}: loss, smoothed", style="bold")
    for row in reversed(range(ROWS)):
        label = {ROWS - 1: f"{high:.4g}", 0: f"{low:.4g}"}.get(row, "")
        filled = [min(max(level - row, 0.0 if row else 0.1), 1.0) for level in levels]
        print_line(f"{label:>8} {''.join(blocks[round(share * (len(blocks) - 1))] for share in filled)}".rstrip())
    first, last = str(min(curve)), str(max(curve))
    print_line(f"{'':8} {first}" + (f"{last:>{max(width - len(first), len(last) + 1)}}" if last != first else ""))


def _print_summary(metrics_by_run: "dict[str, RunMetrics]") -> None:
    """Print a table with the last step, the last loss and the best dev scores of each run."""
    from signllava_cli.console import print_table

    rows = []
    for name, metrics in metrics_by_run.items():
        curves = metrics.curves
        dev, bleu = curves.get("dev_loss", {}), curves.get("dev_bleu", {})
        last = {metric: list(curve.values())[-1] for metric, curve in curves.items()}
        rows.append(
            [
                name,
                max(map(max, curves.values())),
                f"{last['loss']:.4f}" if "loss" in last else "-",
                f"{min(dev.values()):.4f} at {min(dev, key=dev.__getitem__)}" if dev else "-",
                f"{max(bleu.values()):.1f} at {max(bleu, key=bleu.__getitem__)}" if bleu else "-",
                f"{last['tokens_per_second']:,.0f}" if "tokens_per_second" in last else "-",
            ]
        )
    print_table("Runs", ["run", "step", "loss", "best dev loss", "best dev BLEU", "tokens/s"], rows)
