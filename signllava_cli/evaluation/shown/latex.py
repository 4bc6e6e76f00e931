"""The scores as a table for a paper."""

from collections.abc import Mapping, Sequence

from signllava_cli.evaluation.score import Evaluation, Scored, labels_of
from signllava_cli.evaluation.seeds import Seeds

SPECIAL = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def latex_table(evaluation: Evaluation) -> str:
    """A `tabular` of booktabs: a line a system, and beside each score how certain it is.

    That is half the width of its 95 % interval; in the line of a system of several seeds, the standard deviation of
    its runs. What was scored, and how, stands in comments.
    """
    keys, labels = evaluation.shown(), labels_of()
    seeds = {each.name: each for each in evaluation.seeds}
    lines = [
        *(f"% {line}" for line in _comments(evaluation)),
        rf"\begin{{tabular}}{{l{'r' * len(keys)}}}",
        r"\toprule",
        " & ".join(["", *(escaped(labels[key]) for key in keys)]) + r" \\",
        r"\midrule",
    ]
    for each in evaluation.scored:
        name = each.system.seed_of
        if name is None:
            lines.append(_line(each.system.name, keys, _of_system(each)))
        elif name in seeds:
            lines.append(_line(name, keys, _of_seeds(seeds.pop(name))))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(name: str, keys: Sequence[str], cells: Mapping[str, tuple[float, float | None]]) -> str:
    """`cells`: key -> figure, and what stands behind its plus-minus."""
    written = [escaped(name)]
    for key in keys:
        figure, around = cells.get(key, (None, None))
        spread = "" if around is None else rf" {{\small $\pm$ {around:.1f}}}"
        written.append("--" if figure is None else f"{figure:.1f}{spread}")
    return " & ".join(written) + r" \\"


def _of_system(scored: Scored) -> dict[str, tuple[float, float | None]]:
    found: dict[str, tuple[float, float | None]] = {}
    for key, figure in scored.figures.items():
        interval = scored.intervals.get(key)
        found[key] = (figure, None if interval is None else (interval.high - interval.low) / 2)
    return found


def _of_seeds(seeds: Seeds) -> dict[str, tuple[float, float | None]]:
    return {key: (spread.mean, spread.standard_deviation) for key, spread in seeds.scores.items()}


def _comments(evaluation: Evaluation) -> list[str]:
    first, scoring = evaluation.scored[0].system, evaluation.scoring
    said = [f"{len(first.rows)} clips, hash of their ids {first.ids_hash}"]
    if scoring.samples:
        said.append(f"+-: half the 95 % interval, {scoring.samples} bootstrap samples of {scoring.resample}")
    said += [f"+- of {each.name}: standard deviation of {len(each.runs)} runs" for each in evaluation.seeds]
    return [" ".join(line.split()) for line in [*said, *(f"{k}: {v}" for k, v in evaluation.signatures.items())]]


def escaped(text: str) -> str:
    """`text` as LaTeX shows it."""
    return "".join(SPECIAL.get(each, each) for each in text)
