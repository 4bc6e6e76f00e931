"""Prints an evaluation on the terminal."""

from signllava_cli.console import print_line, print_table, warning
from signllava_cli.errors import format_count, summarize_names
from signllava_cli.evaluation.metrics.all_metrics import LABELS, format_score
from signllava_cli.evaluation.resampling import MeanComparison
from signllava_cli.evaluation.results import Evaluation, SystemResult
from signllava_cli.evaluation.systems import TRANSLATION, System


def print_evaluation(evaluation: Evaluation) -> None:
    """Print scores, intervals, comparisons, signatures, and warnings about missing clips and leaked references."""
    keys = evaluation.table_keys
    _print_scores(evaluation, keys)
    if evaluation.seeds:
        _print_seeds(evaluation, keys)
    if evaluation.config.num_samples:
        _print_uncertainty(evaluation, keys)
    elif evaluation.results[1:]:
        print_line("--samples 0: no intervals and no comparisons")
    for metric, signature in evaluation.signatures.items():
        print_line(f"{metric}: {signature}")
    for result in evaluation.results:
        if (num_pairs := result.scores.get("rbleu_pairs")) is not None:
            print_line(
                f"{result.system.name}: reduced BLEU counts {num_pairs:.0f} of {len(result.system.rows)} pairs"
            )
        _print_missing(result.system)
        _print_leaks(result)
    baseline = evaluation.baseline
    if empty := [row.id for row in baseline.rows if not row.reference.strip()]:
        count = format_count(len(empty), "clip has", "clips have")
        warning(f"{count} an empty reference ({summarize_names(empty)}): every hypothesis is wrong.")
    _warn_about_equal_systems(evaluation)
    summary = [f"clips {len(baseline.rows)}", f"hash of their ids {baseline.ids_hash}"]
    if baseline.task == TRANSLATION:
        num_marked = sum(1 for mark in evaluation.context_bound_marks if mark)
        summary += [f"context-bound {num_marked}", f"preset {evaluation.config.preset}"]
    print_line("; ".join(summary))


def _print_scores(evaluation: Evaluation, keys: list[str]) -> None:
    rows = []
    for result in evaluation.results:
        cells = [format_score(key, result.scores[key]) if key in result.scores else "-" for key in keys]
        rows.append([result.system.name, result.system.context_source, len(result.system.rows), *cells])
    print_table("Scores", ["predictions", "context", "clips", *(LABELS[key] for key in keys)], rows)


def _print_seeds(evaluation: Evaluation, keys: list[str]) -> None:
    rows = []
    for summary in evaluation.seeds:
        scores = [summary.scores.get(key) for key in keys]
        cells = [f"{score.mean:.2f} ± {score.standard_deviation:.2f}" if score else "-" for score in scores]
        rows.append([summary.name, len(summary.runs), *cells])
    title = "Several seeds: mean ± standard deviation of the runs"
    print_table(title, ["system", "runs", *(LABELS[key] for key in keys)], rows)
    compared = [summary for summary in evaluation.seeds if summary.against_baseline]
    keys = [key for key in keys if any(key in summary.against_baseline for summary in compared)]
    rows = []
    for summary in compared:
        comparisons = [summary.against_baseline.get(key) for key in keys]
        rows.append([summary.name, *(format_mean_comparison(each) if each else "-" for each in comparisons)])
    if rows:
        title = f"Means against {evaluation.baseline_group} (p by paired approximate randomization, or b: bootstrap)"
        print_table(title, ["system", *(LABELS[key] for key in keys)], rows)


def format_mean_comparison(comparison: MeanComparison) -> str:
    """The difference with its p-value; by bootstrap, marked `b`, if the systems have different numbers of runs."""
    if comparison.randomization_p is None:
        return f"{comparison.difference:+.2f} (b {format_p_value(comparison.bootstrap_p)})"
    return f"{comparison.difference:+.2f} ({format_p_value(comparison.randomization_p)})"


def _print_uncertainty(evaluation: Evaluation, keys: list[str]) -> None:
    config, results = evaluation.config, evaluation.results
    keys = [key for key in keys if key in results[0].intervals]
    columns = ["predictions", *(LABELS[key] for key in keys)]
    rows = []
    for result in results:
        intervals = [result.intervals[key] for key in keys]
        rows.append([result.system.name, *(f"{interval.low:.2f} to {interval.high:.2f}" for interval in intervals)])
    print_table(f"95 % intervals, {config.num_samples:,} bootstrap samples of {config.resample}", columns, rows)
    rows = []
    for result in results[1:]:
        comparisons = [result.comparisons[key] for key in keys]
        cells = [f"{cell.difference:+.2f} ({format_p_value(cell.randomization_p)})" for cell in comparisons]
        if cells:
            rows.append([result.system.name, *cells])
    if rows:
        print_table(f"Against {evaluation.baseline.name} (p by paired approximate randomization)", columns, rows)


def format_p_value(value: float) -> str:
    """A p-value with three decimals; `<0.001` if these would be 0."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _print_missing(system: System) -> None:
    scored_ids = {row.id for row in system.rows}
    effect = "scored as empty" if scored_ids.issuperset(system.missing) else "skipped"
    for ids, reason in (
        (system.missing, f"no hypothesis, {effect}"),
        (system.extra, "no reference, skipped"),
        (system.unscored, "no text in the file, not scored (with --references, scored as empty)"),
    ):
        if ids:
            count = format_count(len(ids), "clip has", "clips have")
            warning(f"{system.name}: {count} {reason} ({summarize_names(ids)}).")


def _print_leaks(result: SystemResult) -> None:
    leaked_clips = result.analysis.get("leaked_clips")
    if leaked_clips:
        count = format_count(
            len(leaked_clips), "clip saw its own reference in its", "clips saw their own reference in their"
        )
        warning(
            f"{result.system.name}: {count} context "
            f"({summarize_names(leaked_clips)}): a sentence is signed twice, or a reference leaked."
        )
    elif leaked_clips is not None and any(row.context for row in result.system.rows):
        print_line(f"{result.system.name}: no clip saw its own reference in its context")


def _warn_about_equal_systems(evaluation: Evaluation) -> None:
    """Warn of systems with the same hypotheses: a file that was named twice, or a setting without effect."""
    names: dict[tuple[str, ...], str] = {}
    for result in evaluation.results:
        name, hypotheses = result.system.name, tuple(row.hypothesis for row in result.system.rows)
        if (other := names.setdefault(hypotheses, name)) != name:
            warning(f"{name} has the same hypotheses as {other}; is one file named twice?")
