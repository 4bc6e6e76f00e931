"""The scores as a table for a paper."""

from collections.abc import Sequence

from signllava_cli.evaluation.score import Scored

SPECIAL = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def latex_table(scored: Sequence[Scored], keys: Sequence[str], labels: dict[str, str]) -> str:
    """A `tabular` of booktabs: a line a system, the half width of each 95 % interval beside its score."""
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(keys)}}}",
        r"\toprule",
        " & ".join(["", *(escaped(labels[key]) for key in keys)]) + r" \\",
        r"\midrule",
    ]
    for each in scored:
        cells = [escaped(each.system.name)]
        for key in keys:
            interval = each.intervals.get(key)
            spread = rf" {{\small $\pm$ {(interval.high - interval.low) / 2:.1f}}}" if interval else ""
            cells.append(f"{each.figures[key]:.1f}{spread}" if key in each.figures else "--")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """`text` as LaTeX shows it."""
    return "".join(SPECIAL.get(each, each) for each in text)
