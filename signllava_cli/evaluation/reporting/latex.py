"""The scores as a table for a paper."""

from collections.abc import Sequence

from signllava_cli.errors import format_count
from signllava_cli.evaluation.metrics.all_metrics import LABELS, format_score
from signllava_cli.evaluation.results import Evaluation, SeedSummary, SystemResult

SIGNIFICANCE_LEVEL = 0.05
LATEX_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def make_latex_table(evaluation: Evaluation) -> str:
    """A `tabular` of booktabs with a line per system; after each score, in small type, its uncertainty.

    That is the 95 % interval, [low, high]; in the line of a system with several seeds, the standard deviation of its
    runs (sd). The clips and the signatures are in comments.
    """
    keys = evaluation.table_keys
    seeds = {summary.name: summary for summary in evaluation.seeds}
    lines = [
        *(f"% {line}" for line in _make_comments(evaluation)),
        rf"\begin{{tabular}}{{l{'r' * len(keys)}}}",
        r"\toprule",
        " & ".join(["", *(escape_latex(LABELS[key]) for key in keys)]) + r" \\",
        r"\midrule",
    ]
    for result in evaluation.results:
        group = result.system.seed_group
        if group is None:
            lines.append(_format_line(result.system.name, [_format_system_cell(result, key) for key in keys]))
        elif group in seeds:
            summary = seeds.pop(group)
            lines.append(_format_line(group, [_format_seeds_cell(summary, key) for key in keys]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _format_line(name: str, cells: Sequence[str]) -> str:
    return " & ".join([escape_latex(name), *cells]) + r" \\"


def _format_system_cell(result: SystemResult, key: str) -> str:
    if key not in result.scores:
        return "--"
    interval = result.intervals.get(key)
    uncertainty = rf" {{\small [{interval.low:.1f}, {interval.high:.1f}]}}" if interval else ""
    return format_score(key, result.scores[key]) + uncertainty


def _format_seeds_cell(summary: SeedSummary, key: str) -> str:
    if key not in summary.scores:
        return "--"
    score, comparison = summary.scores[key], summary.against_baseline.get(key)
    p_value = None if comparison is None else comparison.randomization_p
    mark = r"$^{*}$" if p_value is not None and p_value < SIGNIFICANCE_LEVEL else ""
    return rf"{format_score(key, score.mean)}{mark} {{\small sd {score.standard_deviation:.2f}}}"


def _make_comments(evaluation: Evaluation) -> list[str]:
    baseline, config = evaluation.baseline, evaluation.config
    lines = [f"{format_count(len(baseline.rows), 'clip')}, hash of their ids {baseline.ids_hash}"]
    if config.num_samples:
        lines.append(f"[low, high]: 95 % interval, {config.num_samples} bootstrap samples of {config.resample}")
    lines += [f"sd of {summary.name}: standard deviation of {len(summary.runs)} runs" for summary in evaluation.seeds]
    if any(summary.against_baseline for summary in evaluation.seeds):
        test = "paired approximate randomization, not corrected for several comparisons"
        lines.append(
            f"*: the mean differs from that of {evaluation.baseline_group}, p < {SIGNIFICANCE_LEVEL} ({test})"
        )
    lines += [f"{metric}: {signature}" for metric, signature in evaluation.signatures.items()]
    return [" ".join(line.split()) for line in lines]


def escape_latex(text: str) -> str:
    """`text` with the special characters of LaTeX escaped."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)
