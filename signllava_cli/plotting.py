"""The colors and the style of all charts, and how they are saved."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from signllava_cli.files import atomic_file

COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
)  # Okabe and Ito's color-blind-safe palette
DPI = 150


def style_axes(axes: Axes, title: str, grid: Literal["x", "y", "both"], size: float | None = None) -> None:
    """Give `axes` a bold title at the left (`size` in points), a light grid, and no frame at the top and right."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=size)
    axes.grid(True, axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_chart(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file; an earlier file is replaced only when the new one is complete.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png")


def escape_label(name: str) -> str:
    """`name` as matplotlib shows it literally: `$` starts math text, and labels that begin with `_` are hidden."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")
