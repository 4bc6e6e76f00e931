"""Score systems: their figures, how certain those are, and everything that a reader needs to repeat it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from signllava_cli._version import __version__
from signllava_cli.console import warning
from signllava_cli.data.annotations import ContextBound
from signllava_cli.errors import UserError
from signllava_cli.evaluation.analysis import Counted, analyze, sentence_gains
from signllava_cli.evaluation.metrics.base import CountedMetric, TextMetric
from signllava_cli.evaluation.metrics.bleurt import Bleurt
from signllava_cli.evaluation.metrics.comet import Comet
from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy
from signllava_cli.evaluation.metrics.meteor import Meteor
from signllava_cli.evaluation.metrics.presets import find_preset, read_stop_list
from signllava_cli.evaluation.metrics.text_metrics import TEXT_METRICS, Chrf, ChrfPlusPlus, ReducedBleu
from signllava_cli.evaluation.metrics.yes_no import YesNo
from signllava_cli.evaluation.resampling import (
    SEED,
    Comparison,
    Interval,
    ResamplingUnits,
    bootstrap_intervals,
    compare_paired,
)
from signllava_cli.evaluation.seeds import SeedSummary, summarize_seeds
from signllava_cli.evaluation.systems import System
from signllava_cli.generation.instructions import FREE_QUESTION
from signllava_cli.recipe import TASKS

TRANSLATION, *QUESTIONS = TASKS  # all tasks but the first are yes/no questions
LIBRARIES = ("sacrebleu", "evaluate", "rouge-score", "rapidfuzz", "numpy")
OF_TEXTS = (
    "bleu1",
    "bleu2",
    "bleu3",
    "bleu4",
    "chrf2",
    "rougeL",
    "rougeL_mscoco",
    "rougeL_seq2seq",
    "meteor",
    "rbleu",
    "bleurt",
    "comet",
    "exact_match",
)
OF_ANSWERS = ("items", "accuracy", "precision", "recall", "f1", "malformed")
NUMBERS = ReducedBleu.numbers | YesNo.numbers
BY_KIND = ("bleu4", "chrf2")  # by kind of clip
MIN_UNITS = 10  # units, with which resampling tells little
ROUGE = ("rougeL", "rougeL_mscoco", "rougeL_seq2seq")  # of which tables show the one of the preset
SHOWN = (*OF_TEXTS, *ContextBoundAccuracy.labels, *OF_ANSWERS)  # in tables, where there are any


@dataclass(frozen=True)
class Scoring:
    """How systems are scored.

    `meteor`, `bleurt`, `comet`: the data of these metrics on this machine; they are computed where it is named.
    `resample`: what an interval takes for independent. `samples` of the bootstrap, `trials` of the randomization; no
    intervals and no comparison with 0 samples.
    """

    preset: str = "how2sign"
    stop_list: Path | None = None
    meteor: Path | None = None
    bleurt: Path | None = None
    comet: Path | None = None
    resample: Literal["recordings", "clips"] = "recordings"
    samples: int = 1000
    trials: int = 10_000


@dataclass(frozen=True)
class SystemResult:
    """A system's figures by key, their intervals, the comparison with the first system (none for itself), and what
    `behavior.behavior` tells, with the gain of each clip against the first system. `clip_scores`: float64 (N,), the
    sentence chrF2 of each translation, the accuracy of each answer."""

    system: System
    figures: dict[str, float]
    clip_scores: np.ndarray
    intervals: dict[str, Interval]
    comparisons: dict[str, Comparison]
    analysis: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in scores.json."""
        rows = self.system.rows
        return {
            "name": self.system.name,
            "seed_of": self.system.seed_of,
            "file": str(self.system.file),
            "task": self.system.task,
            "context_source": self.system.context_source,
            "clips": len(rows),
            "recordings": len({row.recording for row in rows}),
            "clips_hash": self.system.ids_hash,
            "missing": list(self.system.missing),
            "extra": list(self.system.extra),
            "unscored": list(self.system.unscored),
            "empty_hypotheses": sum(1 for row in rows if not row.hypothesis.strip()),
            "empty_references": sum(1 for row in rows if not row.reference.strip()),
            "context_bound_clips": sum(1 for row in rows if row.context_bound),
            "scores": self.figures,
            "intervals": {key: asdict(interval) for key, interval in self.intervals.items()},
            "against_first": {key: asdict(comparison) for key, comparison in self.comparisons.items()},
            "analysis": self.analysis,
        }


@dataclass(frozen=True)
class Evaluation:
    """All systems on the same clips, the baseline first, those of several seeds summarized, and how it was done.

    `figures`: for each key its name in tables, its metric, and whether less is better; `signatures`: by metric.
    """

    scored: tuple[SystemResult, ...]
    seeds: tuple[SeedSummary, ...]
    figures: dict[str, dict[str, Any]]
    signatures: dict[str, str]
    scoring: Scoring

    def shown(self) -> list[str]:
        """The keys of the figures that tables show; of ROUGE-L the variant of the preset."""
        others = set(ROUGE) - {find_preset(self.scoring.preset).rouge}
        return [key for key in SHOWN if key not in others and any(key in each.figures for each in self.scored)]

    @property
    def labels(self) -> dict[str, str]:
        """Key of a figure -> its name in tables."""
        return {key: figure["label"] for key, figure in self.figures.items()}

    def to_dict(self) -> dict[str, Any]:
        """scores.json."""
        scoring = self.scoring
        return {
            "results": [{**each.to_dict(), "signatures": self.signatures} for each in self.scored],
            "baseline": self.scored[0].system.name,
            "seeds": [each.to_dict() for each in self.seeds],
            "figures": self.figures,
            "signatures": self.signatures,
            "resampling": {
                "units": scoring.resample,
                "samples": scoring.samples,
                "trials": scoring.trials,
                "seed": SEED,
            },
            "preset": scoring.preset,
            "versions": {"signllava": __version__, **{name: version(name) for name in LIBRARIES}},
        }


def score_systems(systems: Sequence[System], scoring: Scoring) -> Evaluation:
    """Score `systems`, which hold the same clips; the others are compared with the first.

    Raises:
        UserError: the preset, the stop list or the data of a metric is none.
    """
    measured = _count_all(systems, _metrics(systems[0].task, scoring))
    units = _make_units(systems, scoring)
    scored = tuple(_score_system(systems, index, measured, units, scoring) for index in range(len(systems)))
    signatures = {type(each.metric).__name__: each.metric.signature for each in measured}
    figures = {
        key: {"label": label, "metric": type(each.metric).__name__, "lower_is_better": each.metric.lower_is_better}
        for each in measured
        for key, label in each.metric.labels.items()
    }
    return Evaluation(scored, _summarize_seeds(scored), figures, signatures, scoring)


def format_score(key: str, value: float) -> str:
    """A figure as tables show it: a score with two places, a number of items or pairs with none."""
    return f"{value:.0f}" if key in NUMBERS else f"{value:.2f}"


def _metrics(task: str, scoring: Scoring) -> list[TextMetric]:
    if task == FREE_QUESTION:
        raise UserError("Answers to a question of one's own have no references, so nothing can be scored.")
    if task not in (TRANSLATION, *QUESTIONS):
        raise UserError(f"task {task}: known are {TRANSLATION}, {', '.join(QUESTIONS)}.")
    if task != TRANSLATION:
        given = {
            "--stop-list": scoring.stop_list,
            "--meteor": scoring.meteor,
            "--bleurt": scoring.bleurt,
            "--comet": scoring.comet,
        }
        if useless := [option for option, value in given.items() if value is not None]:
            raise UserError(f"{' and '.join(useless)}: for translations; these are answers of the task {task}.")
        return [YesNo()]
    preset = find_preset(scoring.preset)
    metrics = [kind(preset) for kind in TEXT_METRICS]
    if scoring.stop_list is not None:
        metrics.append(ReducedBleu(*read_stop_list(scoring.stop_list), preset))
    if scoring.meteor is not None:
        metrics.append(Meteor(scoring.meteor, preset))
    if scoring.bleurt is not None:
        metrics.append(Bleurt(scoring.bleurt, preset))
    if scoring.comet is not None:
        metrics.append(Comet(scoring.comet, preset))
    return metrics


@dataclass(frozen=True)
class MetricCounts:
    """A metric, and what it counts in the clips of each system: (N, K)."""

    metric: CountedMetric
    counts: tuple[np.ndarray, ...]

    def of(self, index: int) -> Counted:
        """What it counts in those of one system."""
        return Counted(self.metric, self.counts[index])


def _count_all(systems: Sequence[System], metrics: Sequence[TextMetric]) -> list[MetricCounts]:
    """Each of `metrics` on all systems; and, where the corpus marks clips as context-bound, the accuracy on them."""
    hypotheses = [[row.hypothesis for row in system.rows] for system in systems]
    references = [row.reference for row in systems[0].rows]
    counts = {
        type(each): tuple(each.counts(said, references) for said in hypotheses)
        for each in metrics
        if type(each) is not Chrf
    }
    if ChrfPlusPlus in counts:
        counts[Chrf] = tuple(map(Chrf.of_plus_plus, counts[ChrfPlusPlus]))
    found = [MetricCounts(each, counts[type(each)]) for each in metrics]
    marks = context_bound_marks(systems)
    if any(marks):
        accuracy = ContextBoundAccuracy()
        found.append(MetricCounts(accuracy, tuple(accuracy.counts(said, marks) for said in hypotheses)))
    return found


def context_bound_marks(systems: Sequence[System]) -> list[ContextBound | None]:
    """The corpus's mark of each clip, from the first system whose file has any; of translations alone."""
    listed = [[row.context_bound for row in system.rows] for system in systems]
    nothing: list[ContextBound | None] = [None] * len(listed[0])
    return next((marks for marks in listed if any(marks)), nothing) if systems[0].task == TRANSLATION else nothing


def _make_units(systems: Sequence[System], scoring: Scoring) -> ResamplingUnits:
    rows = systems[0].rows
    units = ResamplingUnits([row.recording if scoring.resample == "recordings" else row.id for row in rows])
    if units.count == 1 and scoring.samples:
        warning("all clips are of one recording, so resampling recordings tells nothing; see --resample clips.")
    elif units.count < MIN_UNITS and scoring.samples:
        least = f", p-values too; by randomization none is below {2 ** (1 - units.count):.3g}" if systems[1:] else ""
        warning(f"there are but {units.count} {scoring.resample} to resample: intervals are rough{least}.")
    return units


def _score_system(
    systems: Sequence[System], index: int, measured: Sequence[MetricCounts], units: ResamplingUnits, scoring: Scoring
) -> SystemResult:
    figures: dict[str, float] = {}
    spread: dict[str, Interval] = {}
    against: dict[str, Comparison] = {}
    for each in measured:
        metric, counts = each.metric, each.counts[index]
        figures |= {key: float(value) for key, value in metric.scores(counts.sum(axis=0)).items()}
        if scoring.samples:
            spread |= bootstrap_intervals(metric, counts, units, scoring.samples)
        if scoring.samples and index:
            against |= compare_paired(metric, each.counts[0], counts, units, scoring.samples, scoring.trials)
    own = _clip_scores(measured, index)
    facts = {}
    if systems[0].task == TRANSLATION:
        by = {key: each.of(index) for each in measured for key in BY_KIND if key in each.metric.labels}
        facts = analyze(systems[index].rows, by, find_preset(scoring.preset).language)
        if index:
            facts["gains"] = sentence_gains(systems[index].rows, own, _clip_scores(measured, 0))
    return SystemResult(systems[index], figures, own, spread, against, facts)


def _clip_scores(measured: Sequence[MetricCounts], index: int) -> np.ndarray:
    """Float64 (N,): the sentence chrF2 of each translation of a system, or the accuracy of each answer."""
    return next(
        each.metric.scores(each.counts[index])[key]
        for each in measured
        for key in ("chrf2", "accuracy")
        if key in each.metric.labels
    )


def _summarize_seeds(scored: Sequence[SystemResult]) -> tuple[SeedSummary, ...]:
    names = dict.fromkeys(each.system.seed_of for each in scored if each.system.seed_of is not None)
    return tuple(
        summarize_seeds(name, {each.system.name: each.figures for each in scored if each.system.seed_of == name})
        for name in names
    )
