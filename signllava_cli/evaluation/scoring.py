"""Scores systems: their scores, intervals, comparisons with the baseline, and analyses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from signllava_cli.console import warning
from signllava_cli.errors import UserError
from signllava_cli.evaluation.analysis import analyze, compute_sentence_gains
from signllava_cli.evaluation.metrics.all_metrics import METRICS
from signllava_cli.evaluation.metrics.base import MetricStatistics, TextMetric
from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.evaluation.metrics.text_metrics import Chrf, ChrfPlusPlus
from signllava_cli.evaluation.resampling import (
    Comparison,
    Interval,
    MeanComparison,
    ResamplingUnits,
    compare_means,
    compare_paired,
    compute_bootstrap_intervals,
)
from signllava_cli.evaluation.results import Evaluation, ScoringConfig, SeedSummary, SystemResult
from signllava_cli.evaluation.systems import TRANSLATION, System, collect_context_bound_marks
from signllava_cli.generation.instructions import FREE_QUESTION
from signllava_cli.recipe import TASKS

BUCKET_KEYS = ("bleu4", "chrf2")  # the scores of the clips of each bucket
CLIP_SCORE_KEYS = ("chrf2", "accuracy")  # the score of a single clip: of translations, of answers
MIN_UNITS = 10  # with fewer units, intervals are rough


def score_systems(systems: Sequence[System], config: ScoringConfig) -> Evaluation:
    """Score `systems`, which have the same clips; the first is the baseline of the others.

    Raises:
        UserError: the preset is unknown, or the stop list or the data of a metric is not valid.
    """
    metrics = _make_metrics(systems[0].task, config)
    statistics_by_system = [_extract_statistics(system, metrics) for system in systems]
    marks = collect_context_bound_marks(systems)
    if any(marks):
        accuracy = ContextBoundAccuracy()
        for system, system_statistics in zip(systems, statistics_by_system, strict=True):
            hypotheses = [row.hypothesis for row in system.rows]
            system_statistics.append(MetricStatistics(accuracy, accuracy.extract_statistics(hypotheses, marks)))
    units = _make_units(systems, config)
    results = [
        _score_system(
            system, system_statistics, None if index == 0 else statistics_by_system[0], units=units, config=config
        )
        for index, (system, system_statistics) in enumerate(zip(systems, statistics_by_system, strict=True))
    ]
    return Evaluation(
        results=tuple(results),
        seeds=_summarize_seeds(results, statistics_by_system, units, config),
        metrics=tuple(metric_statistics.metric for metric_statistics in statistics_by_system[0]),
        config=config,
    )


def _make_metrics(task: str, config: ScoringConfig) -> list[TextMetric]:
    """The metrics for hypotheses of `task`: all that need no data, and those whose data `config` has."""
    if task == FREE_QUESTION:
        raise UserError("Answers to a free question have no references, so they cannot be scored.")
    if task not in TASKS:
        raise UserError(f"task {task}: unknown task; expected one of {', '.join(TASKS)}.")
    scored = "translations" if task == TRANSLATION else "answers"
    options = [
        entry.option for name, entry in METRICS.items() if name in config.metric_data and entry.input_kind != scored
    ]
    if options:
        raise UserError(
            f"{' and '.join(map(str, options))}: only for translations; these are answers of the task {task}."
        )
    preset = find_preset(config.preset)
    metrics: list[TextMetric] = []
    for name, entry in METRICS.items():
        metric_class: Any = entry.metric
        if entry.input_kind == scored and entry.option is None:
            metrics.append(metric_class(preset))
        elif name in config.metric_data:
            metrics.append(metric_class(config.metric_data[name], preset))
    return metrics


def _extract_statistics(system: System, metrics: Sequence[TextMetric]) -> list[MetricStatistics]:
    """The statistics of the system's clips for each of `metrics`; character n-grams are counted once, for chrF++."""
    texts = [row.hypothesis for row in system.rows], [row.reference for row in system.rows]
    values = {type(metric): metric.extract_statistics(*texts) for metric in metrics if type(metric) is not Chrf}
    if ChrfPlusPlus in values:
        values[Chrf] = Chrf.select_statistics(values[ChrfPlusPlus])
    return [MetricStatistics(metric, values[type(metric)]) for metric in metrics]


def _make_units(systems: Sequence[System], config: ScoringConfig) -> ResamplingUnits:
    rows = systems[0].rows
    units = ResamplingUnits([row.recording if config.resample == "recordings" else row.id for row in rows])
    if units.num_units == 1 and config.num_samples:
        warning("all clips are of one recording, so resampling recordings gives no intervals; use --resample clips.")
    elif units.num_units < MIN_UNITS and config.num_samples:
        min_p = f"{2 ** (1 - units.num_units):.3g}"
        p_values = f", and so are p-values; by randomization none is below {min_p}" if systems[1:] else ""
        warning(f"only {units.num_units} {config.resample} to resample: intervals are rough{p_values}.")
    return units


def _score_system(
    system: System,
    statistics: Sequence[MetricStatistics],
    baseline: Sequence[MetricStatistics] | None,
    *,
    units: ResamplingUnits,
    config: ScoringConfig,
) -> SystemResult:
    """The results of `system`, compared with the statistics of the `baseline`; of the baseline itself with None."""
    scores: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    comparisons: dict[str, Comparison] = {}
    num_samples, num_trials = config.num_samples, config.num_trials
    for index, metric_statistics in enumerate(statistics):
        scores |= metric_statistics.compute_scores()
        if num_samples:
            intervals |= compute_bootstrap_intervals(metric_statistics, units, num_samples)
        if num_samples and baseline is not None:
            comparisons |= compare_paired(
                metric_statistics, baseline[index].values, units, num_samples=num_samples, num_trials=num_trials
            )
    clip_scores = _compute_clip_scores(statistics)
    analysis: dict[str, Any] = {}
    if system.task == TRANSLATION:
        by_key = {
            key: metric_statistics
            for metric_statistics in statistics
            for key in BUCKET_KEYS
            if key in metric_statistics.metric.labels
        }
        analysis = analyze(system.rows, by_key, find_preset(config.preset).language)
        if baseline is not None:
            analysis["gains"] = compute_sentence_gains(system.rows, clip_scores, _compute_clip_scores(baseline))
    return SystemResult(
        system=system,
        scores=scores,
        clip_scores=clip_scores,
        intervals=intervals,
        comparisons=comparisons,
        analysis=analysis,
    )


def _compute_clip_scores(statistics: Sequence[MetricStatistics]) -> np.ndarray:
    """Sentence chrF2 of each translation of a system, or accuracy of each answer: float64 (N,)."""
    return next(
        metric_statistics.metric.compute_scores(metric_statistics.values)[key]
        for metric_statistics in statistics
        for key in CLIP_SCORE_KEYS
        if key in metric_statistics.metric.labels
    )


def _summarize_seeds(
    results: Sequence[SystemResult],
    statistics_by_system: Sequence[Sequence[MetricStatistics]],
    units: ResamplingUnits,
    config: ScoringConfig,
) -> tuple[SeedSummary, ...]:
    groups: dict[str, list[int]] = {}  # name of a system, or of its group -> indices of its runs
    for index, result in enumerate(results):
        groups.setdefault(result.system.seed_group or result.system.name, []).append(index)
    baseline = next(iter(groups))
    summaries = []
    for name, runs in groups.items():
        comparisons: dict[str, MeanComparison] = {}
        if len(runs) > 1 and name != baseline and config.num_samples:
            for metric_index, metric_statistics in enumerate(statistics_by_system[0]):
                comparisons |= compare_means(
                    metric_statistics.metric,
                    [statistics_by_system[run][metric_index].values for run in runs],
                    [statistics_by_system[run][metric_index].values for run in groups[baseline]],
                    units,
                    num_samples=config.num_samples,
                    num_trials=config.num_trials,
                )
        if len(runs) > 1:
            scores = {results[run].system.name: results[run].scores for run in runs}
            summaries.append(SeedSummary.from_runs(name, scores, comparisons))
    return tuple(summaries)
