"""What all charts share: colors, style, and how a figure becomes a file."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from signllava_cli.files import atomic_file

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe and Ito, for color-blind readers
DPI = 150


def style_axes(axes: Axes, title: str, grid: Literal["x", "y", "both"], size: float | None = None) -> None:
    """What all charts share: a bold title (of `size` points) at the left, a faint grid behind, no box."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=size)
    axes.grid(True, axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_chart(figure: Figure, file: Path) -> None:
    """Write a figure as a whole PNG file, or leave what was there.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png")


def escape_label(name: str) -> str:
    """`name` so that matplotlib shows it as it is: it takes `$` for mathematics, and hides what begins with `_`."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")
