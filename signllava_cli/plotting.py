"""Colors and style of all charts, and how a figure is written to a file."""

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
    """Style `axes`: a bold title at the left (of `size` points), a faint grid behind the data, no frame."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=size)
    axes.grid(True, axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_chart(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_file(file) as temporary:
        figure.savefig(temporary, format="png")


def escape_label(name: str) -> str:
    """`name` escaped for matplotlib, which reads `$` as mathematics and hides labels that begin with `_`."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")
