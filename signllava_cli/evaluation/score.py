"""Score systems: a table on the screen, and scores.json with everything that a reader needs to repeat it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from signllava_cli import __version__
from signllava_cli.console import say, show_table, warn
from signllava_cli.errors import UserError, first_names
from signllava_cli.evaluation.answers import YesNo
from signllava_cli.evaluation.behaviour import behaviour, gains
from signllava_cli.evaluation.metrics import TEXT_METRICS, ContextBoundAccuracy, ReducedBleu, TextMetric
from signllava_cli.evaluation.presets import find_preset, read_stop_list
from signllava_cli.evaluation.resampling import Comparison, Interval, Units, comparisons, intervals
from signllava_cli.evaluation.systems import System
from signllava_cli.files import read_json, write_json
from signllava_cli.generation.questions import FREE

LIBRARIES = ("sacrebleu", "evaluate", "rouge-score", "rapidfuzz", "numpy")
CONTEXT_BOUND = "context_bound_accuracy"
SHOWN_OF_TEXTS = ("bleu1", "bleu2", "bleu3", "bleu4", "chrf2", "rougeL", "rbleu", "exact_match", CONTEXT_BOUND)
SHOWN = (*SHOWN_OF_TEXTS, "accuracy", "precision", "recall", "f1", "malformed")  # in tables, where there are any


@dataclass(frozen=True)
class Scoring:
    """How systems are scored.

    `resample`: what an interval takes for independent. `samples` of the bootstrap, `trials` of the randomisation; no
    intervals and no comparison with 0 samples.
    """

    preset: str = "how2sign"
    stop_list: Path | None = None
    resample: Literal["recordings", "clips"] = "recordings"
    samples: int = 1000
    trials: int = 10_000


@dataclass(frozen=True)
class Scored:
    """A system's figures by key, their intervals, the comparison with the first system (none for itself), and what
    `behaviour.behaviour` tells, with the gain of each clip against the first system."""

    system: System
    figures: dict[str, float]
    intervals: dict[str, Interval]
    comparisons: dict[str, Comparison]
    behaviour: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in scores.json."""
        rows = self.system.rows
        return {
            "name": self.system.name,
            "file": str(self.system.file),
            "task": self.system.task,
            "context_source": rows[0].context_source,
            "clips": len(rows),
            "recordings": len({row.recording for row in rows}),
            "clips_hash": self.system.ids_hash,
            "missing": list(self.system.missing),
            "extra": list(self.system.extra),
            "empty_hypotheses": sum(1 for row in rows if not row.hypothesis.strip()),
            "context_bound_clips": sum(1 for row in rows if row.context_bound),
            "scores": self.figures,
            "intervals": {key: asdict(interval) for key, interval in self.intervals.items()},
            "against_first": {key: asdict(comparison) for key, comparison in self.comparisons.items()},
            "behaviour": self.behaviour,
        }


def score_systems(systems: Sequence[System], scoring: Scoring, out: Path) -> tuple[list[Scored], dict[str, Any]]:
    """Score `systems`, which hold the same clips, print the tables, and write `out`; its content comes back, too.

    Raises:
        UserError: they are of several tasks, the preset or the stop list is none, or `out` holds something else.
    """
    if out.exists() and not (out.is_file() and "results" in read_json(out)):
        raise UserError(f"--out {out} is there and holds no scores: choose another name.")
    tasks = sorted({system.task for system in systems})
    if len(tasks) > 1:
        raise UserError(f"The files are of several tasks ({', '.join(tasks)}); score them apart.")
    metrics = _metrics(tasks[0], scoring)
    scored = _scored(systems, metrics, scoring)
    signatures = {type(metric).__name__: metric.signature for metric in metrics}
    if any(CONTEXT_BOUND in each.figures for each in scored):
        signatures[ContextBoundAccuracy.__name__] = ContextBoundAccuracy.signature
    content = {
        "results": [{**each.to_dict(), "signatures": signatures} for each in scored],
        "signatures": signatures,
        "resampling": {"units": scoring.resample, "samples": scoring.samples, "trials": scoring.trials},
        "preset": scoring.preset,
        "versions": {"signllava": __version__, **{name: version(name) for name in LIBRARIES}},
    }
    _show(scored, labels_of(), signatures, scoring)
    write_json(out, content)
    say(f"scores in {out}")
    return scored, content


def labels_of() -> dict[str, str]:
    """Key of a figure -> its name in tables, for every figure that there is."""
    kinds: list[type[TextMetric]] = [*TEXT_METRICS, ReducedBleu, YesNo]
    return {key: label for kind in kinds for key, label in kind.labels.items()} | {CONTEXT_BOUND: "context-bound %"}


def _metrics(task: str, scoring: Scoring) -> list[TextMetric]:
    if task == FREE:
        raise UserError("Answers to a question of one's own have no references, so nothing can be scored.")
    if task != "translation":
        return [YesNo()]
    preset = find_preset(scoring.preset)
    metrics = [kind(preset) for kind in TEXT_METRICS]
    if scoring.stop_list is not None:
        metrics.append(ReducedBleu(*read_stop_list(scoring.stop_list), preset))
    return metrics


def _scored(systems: Sequence[System], metrics: Sequence[TextMetric], scoring: Scoring) -> list[Scored]:
    rows = systems[0].rows
    units = Units([row.recording if scoring.resample == "recordings" else row.id for row in rows])
    if units.count == 1 and scoring.samples:
        warn("all clips are of one recording, so resampling recordings tells nothing; see --resample clips.")
    scored = []
    baseline: list[np.ndarray] = []
    for number, system in enumerate(systems):
        hypotheses, references = [row.hypothesis for row in system.rows], [row.reference for row in system.rows]
        figures: dict[str, float] = {}
        spread: dict[str, Interval] = {}
        against: dict[str, Comparison] = {}
        for place, metric in enumerate(metrics):
            counts = metric.counts(hypotheses, references)
            figures |= {key: float(value) for key, value in metric.scores(counts.sum(axis=0)).items()}
            if number == 0:
                baseline.append(counts)
            if scoring.samples:
                spread |= intervals(metric, counts, units, scoring.samples)
            if scoring.samples and number:
                against |= comparisons(metric, baseline[place], counts, units, scoring.samples, scoring.trials)
        facts = _facts(system, systems[0], scoring) if system.task == "translation" else {}
        scored.append(Scored(system, figures | _context_bound(system), spread, against, facts))
    return scored


def _facts(system: System, first: System, scoring: Scoring) -> dict[str, Any]:
    preset = find_preset(scoring.preset)
    against = {} if system is first else {"gains": gains(system.rows, first.rows, preset)}
    return {**behaviour(system.rows, preset), **against}


def _context_bound(system: System) -> dict[str, float]:
    bound = [(row.hypothesis, row.context_bound) for row in system.rows if row.context_bound]
    if not bound or system.task != "translation":
        return {}
    result = ContextBoundAccuracy().compute(
        predictions=[hypothesis for hypothesis, _ in bound],
        references=[mark.reading for _, mark in bound],
        others=[list(mark.others) for _, mark in bound],
    )
    return {CONTEXT_BOUND: float(result[CONTEXT_BOUND])}


def _show(scored: Sequence[Scored], labels: dict[str, str], signatures: dict[str, str], scoring: Scoring) -> None:
    shown = [key for key in SHOWN if any(key in each.figures for each in scored)]
    rows = []
    for each in scored:
        cells = [f"{each.figures[key]:.2f}" if key in each.figures else "-" for key in shown]
        rows.append([each.system.name, each.system.rows[0].context_source, len(each.system.rows), *cells])
    show_table("Scores", ["predictions", "context", "clips", *(labels[key] for key in shown)], rows)
    if scoring.samples:
        _show_uncertainty(scored, [key for key in shown if key in scored[0].intervals], labels, scoring)
    for metric, signature in signatures.items():
        say(f"{metric}: {signature}")
    for each in scored:
        _tell_missing(each.system)
        if leaked := each.behaviour.get("leaked"):
            warn(
                f"{each.system.name}: {len(leaked)} clips saw their own reference in their context "
                f"({first_names(leaked)}); repetitions in the signing, or a leak."
            )
    first = scored[0].system
    bound = sum(1 for row in first.rows if row.context_bound)
    say(f"clips {len(first.rows)}, of which {bound} context-bound; hash of their ids {first.ids_hash}")


def _show_uncertainty(scored: Sequence[Scored], shown: list[str], labels: dict[str, str], scoring: Scoring) -> None:
    rows = [
        [each.system.name, *(f"{each.intervals[key].low:.2f} to {each.intervals[key].high:.2f}" for key in shown)]
        for each in scored
    ]
    title = f"95 % intervals, {scoring.samples:,} bootstrap samples of {scoring.resample}"
    show_table(title, ["predictions", *(labels[key] for key in shown)], rows)
    rows = [
        [each.system.name, *(f"{c.difference:+.2f} ({c.bootstrap_p:.3f}, {c.randomisation_p:.3f})" for c in cells)]
        for each in scored[1:]
        if (cells := [each.comparisons[key] for key in shown])
    ]
    if rows:
        title = f"Against {scored[0].system.name} (p by paired bootstrap, by paired randomisation)"
        show_table(title, ["predictions", *(labels[key] for key in shown)], rows)


def _tell_missing(system: System) -> None:
    kept = {row.id for row in system.rows}
    done = "score as empty hypotheses" if kept.issuperset(system.missing) else "are left out"
    for ids, what in (
        (system.missing, f"no hypothesis, and {done}"),
        (system.extra, "no reference, and are left out"),
    ):
        if ids:
            warn(f"{system.name}: {len(ids)} clips have {what} ({first_names(ids)}).")
