"""An evaluation on the screen."""

from signllava_cli.console import info, print_table, warning
from signllava_cli.errors import summarize_names
from signllava_cli.evaluation.scoring import TRANSLATION, Evaluation, context_bound_marks, format_score
from signllava_cli.evaluation.systems import System


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the scores, their intervals, the comparisons, the variants, and all that was missing or leaked."""
    labels = evaluation.labels
    shown = evaluation.shown()
    rows = []
    for each in evaluation.scored:
        cells = [format_score(key, each.figures[key]) if key in each.figures else "-" for key in shown]
        rows.append([each.system.name, each.system.context_source, len(each.system.rows), *cells])
    print_table("Scores", ["predictions", "context", "clips", *(labels[key] for key in shown)], rows)
    if evaluation.seeds:
        _print_seeds(evaluation, shown, labels)
    if evaluation.scoring.samples:
        _print_uncertainty(evaluation, shown, labels)
    elif evaluation.scored[1:]:
        info("--samples 0: no intervals and no comparisons")
    for metric, signature in evaluation.signatures.items():
        info(f"{metric}: {signature}")
    for each in evaluation.scored:
        if (pairs := each.figures.get("rbleu_pairs")) is not None:
            info(f"{each.system.name}: reduced BLEU counts {pairs:.0f} of {len(each.system.rows)} pairs")
        _print_missing(each.system)
        leaked, with_context = each.analysis.get("leaked"), any(row.context for row in each.system.rows)
        if with_context and leaked == []:
            info(f"{each.system.name}: no clip saw its own reference in its context")
        if leaked:
            warning(
                f"{each.system.name}: {len(leaked)} clips saw their own reference in their context "
                f"({summarize_names(leaked)}); repetitions in the signing, or a leak."
            )
    if empty := [row.id for row in evaluation.scored[0].system.rows if not row.reference.strip()]:
        warning(
            f"{len(empty)} clips have an empty reference ({summarize_names(empty)}): whatever is said there is wrong."
        )
    _warn_about_equal_systems(evaluation)
    first = evaluation.scored[0].system
    said = [f"clips {len(first.rows)}", f"hash of their ids {first.ids_hash}"]
    if first.task == TRANSLATION:
        said += [
            f"context-bound {sum(1 for mark in context_bound_marks([each.system for each in evaluation.scored]) if mark)}"
        ]
        said += [f"preset {evaluation.scoring.preset}"]
    info("; ".join(said))


def _print_seeds(evaluation: Evaluation, shown: list[str], labels: dict[str, str]) -> None:
    rows = []
    for system in evaluation.seeds:
        spreads = [system.scores.get(key) for key in shown]
        cells = [f"{each.mean:.2f} ± {each.standard_deviation:.2f}" if each else "-" for each in spreads]
        rows.append([system.name, len(system.runs), *cells])
    title = "Several seeds: mean ± standard deviation of the runs"
    print_table(title, ["system", "runs", *(labels[key] for key in shown)], rows)


def _print_uncertainty(evaluation: Evaluation, shown: list[str], labels: dict[str, str]) -> None:
    scoring, scored = evaluation.scoring, evaluation.scored
    keys = [key for key in shown if key in scored[0].intervals]
    rows = [
        [each.system.name, *(f"{each.intervals[key].low:.2f} to {each.intervals[key].high:.2f}" for key in keys)]
        for each in scored
    ]
    title = f"95 % intervals, {scoring.samples:,} bootstrap samples of {scoring.resample}"
    print_table(title, ["predictions", *(labels[key] for key in keys)], rows)
    rows = [
        [system.system.name, *(f"{each.difference:+.2f} ({format_p_value(each.randomization_p)})" for each in cells)]
        for system in scored[1:]
        if (cells := [system.comparisons[key] for key in keys])
    ]
    if rows:
        title = f"Against {scored[0].system.name} (p by paired approximate randomization)"
        print_table(title, ["predictions", *(labels[key] for key in keys)], rows)


def format_p_value(value: float) -> str:
    """A p-value to three places, `<0.001` where these would be 0."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _print_missing(system: System) -> None:
    kept = {row.id for row in system.rows}
    done = "score as empty hypotheses" if kept.issuperset(system.missing) else "are left out"
    for ids, what in (
        (system.missing, f"no hypothesis, and {done}"),
        (system.extra, "no reference, and are left out"),
        (system.unscored, "no text in the file, and are not scored (with --references, they score as empty)"),
    ):
        if ids:
            warning(f"{system.name}: {len(ids)} clips have {what} ({summarize_names(ids)}).")


def _warn_about_equal_systems(evaluation: Evaluation) -> None:
    """Name systems that say the same of every clip: a file that was given twice, or a setting without effect."""
    said: dict[tuple[str, ...], str] = {}
    for each in evaluation.scored:
        hypotheses = tuple(row.hypothesis for row in each.system.rows)
        if (other := said.setdefault(hypotheses, each.system.name)) != each.system.name:
            warning(f"{each.system.name} says of every clip what {other} says; is one file given twice?")
