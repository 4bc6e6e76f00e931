"""`signllava plot`: the curves of runs, as a picture and in the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signllava_cli.errors import UserError, require_extra

if TYPE_CHECKING:
    from signllava_cli.training.metrics_log import RunMetrics

COLUMNS, ROWS = 60, 6  # characters of a chart in the terminal


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/pretrain.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture, a PNG file.")] = Path("plot.png"),
    smooth: Annotated[
        float, typer.Option(min=0, max=0.999, help="Weight of the past in the moving average of noisy curves.")
    ] = 0.9,
) -> None:
    """Draw loss, dev scores, learning rate, gradient norm and throughput of one or several runs."""
    require_extra("plot", "signllava plot", "matplotlib")
    from signllava_cli.console import info, warning
    from signllava_cli.training.metrics_log import read_runs
    from signllava_cli.training.run_plots import draw_runs

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the picture is a PNG file; give it a name that ends in .png.")
    records = read_runs(runs)
    for name, record in records.items():
        if record.damaged:
            warning(f"{name}: damaged lines of its metrics, left out: {record.damaged}")
    draw_runs(records, smooth, out)
    for name, record in records.items():
        _print_loss(name, record, smooth)
    _print_last(records)
    info(f"all curves in {out}")


def _print_loss(name: str, record: "RunMetrics", smooth: float) -> None:
    """The smoothed loss as columns of blocks."""
    from signllava_cli.console import info, stdout_console
    from signllava_cli.training.metrics_log import exponential_moving_average

    curve = record.curves.get("loss", {})
    values = [
        value for value in exponential_moving_average(list(curve.values()), smooth) if value == value
    ]  # without NaN
    if not values:
        return
    width = min(COLUMNS, len(values))
    values = [values[(column + 1) * len(values) // width - 1] for column in range(width)]
    low, high = min(values), max(values)
    levels = [(value - low) / ((high - low) or 1.0) * ROWS for value in values]
    blocks = " #" if stdout_console.options.ascii_only else " ▁▂▃▄▅▆▇█"
    info(f"{name}: loss, smoothed", style="bold")
    for row in reversed(range(ROWS)):
        label = {ROWS - 1: f"{high:.4g}", 0: f"{low:.4g}"}.get(row, "")
        filled = [min(max(level - row, 0.0 if row else 0.1), 1.0) for level in levels]
        info(f"{label:>8} {''.join(blocks[round(share * (len(blocks) - 1))] for share in filled)}".rstrip())
    first, last = str(min(curve)), str(max(curve))
    info(f"{'':8} {first}" + (f"{last:>{max(width - len(first), len(last) + 1)}}" if last != first else ""))


def _print_last(records: "dict[str, RunMetrics]") -> None:
    """A table of where each run stands."""
    from signllava_cli.console import print_table

    rows = []
    for name, record in records.items():
        curves = record.curves
        dev, bleu = curves.get("dev_loss", {}), curves.get("dev_bleu", {})
        last = {figure: list(curve.values())[-1] for figure, curve in curves.items()}
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
