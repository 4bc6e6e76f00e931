"""The scores as a table for a paper."""

from collections.abc import Sequence

from signllava_cli.evaluation.scoring import Evaluation, SystemResult, format_score
from signllava_cli.evaluation.seeds import SeedSummary

LATEX_ESCAPES = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def latex_table(evaluation: Evaluation) -> str:
    """A `tabular` of booktabs: a line a system, and behind each score, small, how certain it is.

    That is its 95 % interval, [low, high]; in the line of a system of several seeds, the standard deviation of its
    runs (sd). What was scored, and how, stands in comments.
    """
    keys, labels = evaluation.shown(), evaluation.labels
    seeds = {each.name: each for each in evaluation.seeds}
    lines = [
        *(f"% {line}" for line in _comments(evaluation)),
        rf"\begin{{tabular}}{{l{'r' * len(keys)}}}",
        r"\toprule",
        " & ".join(["", *(escape_latex(labels[key]) for key in keys)]) + r" \\",
        r"\midrule",
    ]
    for each in evaluation.scored:
        name = each.system.seed_of
        if name is None:
            lines.append(_line(each.system.name, [_system_cell(each, key) for key in keys]))
        elif name in seeds:
            runs = seeds.pop(name)
            lines.append(_line(name, [_seeds_cell(runs, key) for key in keys]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(name: str, cells: Sequence[str]) -> str:
    return " & ".join([escape_latex(name), *cells]) + r" \\"


def _system_cell(scored: SystemResult, key: str) -> str:
    if key not in scored.figures:
        return "--"
    interval = scored.intervals.get(key)
    small = rf" {{\small [{interval.low:.1f}, {interval.high:.1f}]}}" if interval else ""
    return format_score(key, scored.figures[key]) + small


def _seeds_cell(seeds: SeedSummary, key: str) -> str:
    if key not in seeds.scores:
        return "--"
    spread = seeds.scores[key]
    return rf"{format_score(key, spread.mean)} {{\small sd {spread.standard_deviation:.2f}}}"


def _comments(evaluation: Evaluation) -> list[str]:
    first, scoring = evaluation.scored[0].system, evaluation.scoring
    said = [f"{len(first.rows)} clips, hash of their ids {first.ids_hash}"]
    if scoring.samples:
        said.append(f"[low, high]: 95 % interval, {scoring.samples} bootstrap samples of {scoring.resample}")
    said += [f"sd of {each.name}: standard deviation of {len(each.runs)} runs" for each in evaluation.seeds]
    return [" ".join(line.split()) for line in [*said, *(f"{k}: {v}" for k, v in evaluation.signatures.items())]]


def escape_latex(text: str) -> str:
    """`text` as LaTeX shows it."""
    return "".join(LATEX_ESCAPES.get(each, each) for each in text)
