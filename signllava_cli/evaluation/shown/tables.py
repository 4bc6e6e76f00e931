"""An evaluation on the screen."""

from signllava_cli.console import say, show_table, warn
from signllava_cli.errors import first_names
from signllava_cli.evaluation.score import TRANSLATION, Evaluation, as_figure, marks_of
from signllava_cli.evaluation.systems import System


def show(evaluation: Evaluation) -> None:
    """Print the scores, their intervals, the comparisons, the variants, and all that was missing or leaked."""
    labels = evaluation.labels
    shown = evaluation.shown()
    rows = []
    for each in evaluation.scored:
        cells = [as_figure(key, each.figures[key]) if key in each.figures else "-" for key in shown]
        rows.append([each.system.name, each.system.context_source, len(each.system.rows), *cells])
    show_table("Scores", ["predictions", "context", "clips", *(labels[key] for key in shown)], rows)
    if evaluation.seeds:
        _show_seeds(evaluation, shown, labels)
    if evaluation.scoring.samples:
        _show_uncertainty(evaluation, shown, labels)
    elif evaluation.scored[1:]:
        say("--samples 0: no intervals and no comparisons")
    for metric, signature in evaluation.signatures.items():
        say(f"{metric}: {signature}")
    for each in evaluation.scored:
        if (pairs := each.figures.get("rbleu_pairs")) is not None:
            say(f"{each.system.name}: reduced BLEU counts {pairs:.0f} of {len(each.system.rows)} pairs")
        _tell_missing(each.system)
        leaked, with_context = each.behaviour.get("leaked"), any(row.context for row in each.system.rows)
        if with_context and leaked == []:
            say(f"{each.system.name}: no clip saw its own reference in its context")
        if leaked:
            warn(
                f"{each.system.name}: {len(leaked)} clips saw their own reference in their context "
                f"({first_names(leaked)}); repetitions in the signing, or a leak."
            )
    if empty := [row.id for row in evaluation.scored[0].system.rows if not row.reference.strip()]:
        warn(f"{len(empty)} clips have an empty reference ({first_names(empty)}): whatever is said there is wrong.")
    _tell_equal(evaluation)
    first = evaluation.scored[0].system
    said = [f"clips {len(first.rows)}", f"hash of their ids {first.ids_hash}"]
    if first.task == TRANSLATION:
        said += [f"context-bound {sum(1 for mark in marks_of([each.system for each in evaluation.scored]) if mark)}"]
        said += [f"preset {evaluation.scoring.preset}"]
    say("; ".join(said))


def _show_seeds(evaluation: Evaluation, shown: list[str], labels: dict[str, str]) -> None:
    rows = []
    for system in evaluation.seeds:
        spreads = [system.scores.get(key) for key in shown]
        cells = [f"{each.mean:.2f} ± {each.standard_deviation:.2f}" if each else "-" for each in spreads]
        rows.append([system.name, len(system.runs), *cells])
    title = "Several seeds: mean ± standard deviation of the runs"
    show_table(title, ["system", "runs", *(labels[key] for key in shown)], rows)


def _show_uncertainty(evaluation: Evaluation, shown: list[str], labels: dict[str, str]) -> None:
    scoring, scored = evaluation.scoring, evaluation.scored
    keys = [key for key in shown if key in scored[0].intervals]
    rows = [
        [each.system.name, *(f"{each.intervals[key].low:.2f} to {each.intervals[key].high:.2f}" for key in keys)]
        for each in scored
    ]
    title = f"95 % intervals, {scoring.samples:,} bootstrap samples of {scoring.resample}"
    show_table(title, ["predictions", *(labels[key] for key in keys)], rows)
    rows = [
        [system.system.name, *(f"{each.difference:+.2f} ({as_p(each.randomisation_p)})" for each in cells)]
        for system in scored[1:]
        if (cells := [system.comparisons[key] for key in keys])
    ]
    if rows:
        title = f"Against {scored[0].system.name} (p by paired approximate randomisation)"
        show_table(title, ["predictions", *(labels[key] for key in keys)], rows)


def as_p(value: float) -> str:
    """A p-value to three places, `<0.001` where these would be 0."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _tell_missing(system: System) -> None:
    kept = {row.id for row in system.rows}
    done = "score as empty hypotheses" if kept.issuperset(system.missing) else "are left out"
    for ids, what in (
        (system.missing, f"no hypothesis, and {done}"),
        (system.extra, "no reference, and are left out"),
        (system.unscored, "no text in the file, and are not scored (with --references, they score as empty)"),
    ):
        if ids:
            warn(f"{system.name}: {len(ids)} clips have {what} ({first_names(ids)}).")


def _tell_equal(evaluation: Evaluation) -> None:
    """Name systems that say the same of every clip: a file that was given twice, or a setting without effect."""
    said: dict[tuple[str, ...], str] = {}
    for each in evaluation.scored:
        hypotheses = tuple(row.hypothesis for row in each.system.rows)
        if (other := said.setdefault(hypotheses, each.system.name)) != each.system.name:
            warn(f"{each.system.name} says of every clip what {other} says; is one file given twice?")
