"""How systems are scored, and the results: of each system, of several seeds, of all systems."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from signllava_cli._version import __version__
from signllava_cli.data.annotations import ContextBound
from signllava_cli.evaluation.metrics.all_metrics import LABELS, ROUGE_KEYS, TABLE_KEYS
from signllava_cli.evaluation.metrics.base import Metric
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.evaluation.resampling import SEED, Comparison, Interval, MeanComparison
from signllava_cli.evaluation.systems import System, collect_context_bound_marks

LIBRARIES = ("sacrebleu", "evaluate", "rouge-score", "rapidfuzz", "numpy")  # whose versions are in scores.json


@dataclass(frozen=True)
class ScoringConfig:
    """How systems are scored.

    `preset`: a name in `PRESETS`. `metric_data`: name in `METRICS` -> the local data of a metric that needs some;
    without its data it is not computed. `resample`: the units of resampling, which intervals assume to be
    independent. `num_samples` of the bootstrap, without intervals and comparisons if 0; `num_trials` of the
    randomization test.
    """

    preset: str = "how2sign"
    metric_data: Mapping[str, Path] = field(default_factory=dict)
    resample: Literal["recordings", "clips"] = "recordings"
    num_samples: int = 1000
    num_trials: int = 10_000


@dataclass(frozen=True)
class SystemResult:
    """The results of one system.

    `scores` and `intervals`: by key. `comparisons`: with the baseline, by key; empty for the baseline itself.
    `analysis`: what `analysis.analyze` returns, with the `gains` of each clip over the baseline. `clip_scores`:
    sentence chrF2 of each translation, accuracy of each answer: float64 (N,).
    """

    system: System
    scores: dict[str, float]
    clip_scores: np.ndarray
    intervals: dict[str, Interval]
    comparisons: dict[str, Comparison]
    analysis: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The entry of `results` in scores.json."""
        rows = self.system.rows
        return {
            "name": self.system.name,
            "seed_group": self.system.seed_group,
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
            "scores": self.scores,
            "intervals": {key: asdict(interval) for key, interval in self.intervals.items()},
            "against_baseline": {key: asdict(comparison) for key, comparison in self.comparisons.items()},
            "analysis": self.analysis,
        }


@dataclass(frozen=True)
class MeanDeviation:
    """The mean of a score over several runs, and its sample standard deviation (n - 1)."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class SeedSummary:
    """The scores of several runs of one system that differ in their seed: how much of a score is chance.

    `against_baseline`: comparisons of the means, by key; empty for the baseline itself.
    """

    name: str
    runs: tuple[str, ...]
    scores: dict[str, MeanDeviation]
    against_baseline: dict[str, MeanComparison]

    @classmethod
    def from_runs(
        cls, name: str, runs: Mapping[str, Mapping[str, float]], against_baseline: Mapping[str, MeanComparison]
    ) -> "SeedSummary":
        """The summary of `runs`, name -> scores, two or more; with the keys that all of them have."""
        first, *rest = runs.values()
        scores = {}
        for key in first:
            if all(key in run for run in rest):
                values = np.array([run[key] for run in runs.values()])
                scores[key] = MeanDeviation(float(values.mean()), float(values.std(ddof=1)))
        return cls(name, tuple(runs), scores, dict(against_baseline))

    def to_dict(self) -> dict[str, Any]:
        """The entry of `seeds` in scores.json."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """The results of all systems on the same clips, the baseline first; `seeds`: the systems with several runs."""

    results: tuple[SystemResult, ...]
    seeds: tuple[SeedSummary, ...]
    metrics: tuple[Metric, ...]
    config: ScoringConfig

    @property
    def baseline(self) -> System:
        """The system that the others are compared with."""
        return self.results[0].system

    @property
    def baseline_group(self) -> str:
        """The name of the system that means over seeds are compared with."""
        return self.baseline.seed_group or self.baseline.name

    @property
    def table_keys(self) -> list[str]:
        """The keys of the scores that tables show; of ROUGE-L only the variant of the preset."""
        hidden = ROUGE_KEYS - {find_preset(self.config.preset).rouge}
        return [
            key for key in TABLE_KEYS if key not in hidden and any(key in result.scores for result in self.results)
        ]

    @property
    def signatures(self) -> dict[str, str]:
        """Name of the class of a metric -> its signature."""
        return {type(metric).__name__: metric.signature for metric in self.metrics}

    @property
    def context_bound_marks(self) -> list[ContextBound | None]:
        """The mark of each clip in the corpus."""
        return collect_context_bound_marks([result.system for result in self.results])

    def to_dict(self) -> dict[str, Any]:
        """scores.json."""
        config, signatures = self.config, self.signatures
        return {
            "results": [{**result.to_dict(), "signatures": signatures} for result in self.results],
            "baseline": self.baseline.name,
            "seeds": [summary.to_dict() for summary in self.seeds],
            "score_info": {
                key: {
                    "label": LABELS[key],
                    "metric": type(metric).__name__,
                    "lower_is_better": metric.lower_is_better,
                }
                for metric in self.metrics
                for key in metric.labels
            },
            "signatures": signatures,
            "resampling": {
                "units": config.resample,
                "samples": config.num_samples,
                "trials": config.num_trials,
                "seed": SEED,
            },
            "preset": config.preset,
            "versions": {"signllava": __version__, **{name: version(name) for name in LIBRARIES}},
        }
