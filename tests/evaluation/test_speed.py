"""The speed of `signllava eval`: its start, TER, chrF; and that the faster code gives the same scores."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from sacrebleu.metrics import CHRF, TER

from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy
from signllava_cli.evaluation.metrics.evaluate_metric import EvaluateMetric
from signllava_cli.evaluation.metrics.presets import Preset, find_preset
from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf, ChrfPlusPlus, Ter
from signllava_cli.evaluation.reporting.html_report import write_report
from signllava_cli.evaluation.results import ScoringConfig
from signllava_cli.evaluation.scoring import score_systems
from signllava_cli.evaluation.system_files import read_systems
from signllava_cli.generation.prediction import Prediction

HEAVY_LIBRARIES = ("torch", "transformers", "evaluate", "datasets", "pandas", "nltk", "sklearn", "matplotlib")
RUN_WITHOUT_HEAVY_LIBRARIES = f"""
import sys
from typing import Any
for name in {HEAVY_LIBRARIES}: sys.modules[name] = None
from signllava_cli.cli.main import run
run()
"""


def write_predictions(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    rows = [Prediction(f"r{n // 5}", str(n), n % 5, "translation", *pair) for n, pair in enumerate(pairs)]
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return path


def test_eval_runs_without_the_libraries_of_models(tmp_path: Path) -> None:
    """Two systems, scores, LaTeX and page; benchmarks/limits.py measures what it takes."""
    files = [
        write_predictions(tmp_path / f"{name}.jsonl", [(f"the cat sat on mat {n}", hypothesis) for n in range(20)])
        for name, hypothesis in (("one", "the cat sat"), ("two", "mat on sat cat the"))
    ]
    outputs = ["--out", tmp_path / "s.json", "--latex", tmp_path / "t.tex", "--report", tmp_path / "r.html"]
    command = [
        sys.executable,
        "-c",
        RUN_WITHOUT_HEAVY_LIBRARIES,
        "eval",
        *map(str, [*files, *outputs, "--trials", 1000]),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "r.html").is_file()


def test_every_metric_can_be_used_as_an_evaluate_metric() -> None:
    texts = {"predictions": ["a b c d", "a b"], "references": ["a b c e", "a b"]}
    metric = EvaluateMetric(Bleu())
    assert isinstance(metric, evaluate.Metric)
    assert metric.compute(**texts) == Bleu().compute(**texts)
    for hypothesis, reference in zip(*texts.values(), strict=True):
        metric.add(prediction=hypothesis, reference=reference)
    assert metric.compute() == Bleu().compute(**texts)
    columns: dict[str, Any] = {
        "predictions": ["a pan", "a drum"],
        "references": ["pan", "pan"],
        "others": [["drum"], ["drum"]],
    }
    accuracy = ContextBoundAccuracy()
    assert EvaluateMetric(accuracy).compute(**columns) == accuracy.compute(**columns)
    with pytest.raises(ValueError, match="3 hypotheses, 2 references"):
        Bleu().compute(predictions=["a"] * 3, references=["b"] * 2)


def sacrebleu_edits(preset: Preset, hypothesis: str, reference: str) -> list[float]:
    metric = TER(asian_support=preset.has_character_words, normalized=preset.has_character_words)
    return [float(value) for value in metric._extract_corpus_statistics([hypothesis], [[reference]])[0]]


def shuffled(words: list[str], rng: np.random.Generator, vocabulary: int) -> list[str]:
    """`words` with blocks moved and words replaced, deleted and repeated, so that TER needs shifts."""
    edited = list(words)
    for _ in range(int(rng.integers(0, 4))):
        start, end, to = sorted(rng.integers(0, len(edited) + 1, 3).tolist())
        edited = edited[end:to] + edited[:start] + edited[start:end] + edited[to:]
    edited = [w if rng.random() < 0.8 else str(rng.integers(vocabulary)) for w in edited if rng.random() < 0.9]
    return edited * int(rng.choice([1, 1, 1, 1, 3]))


@pytest.mark.parametrize(("max_words", "num_pairs"), [(8, 200), (30, 60), (75, 4)])
@pytest.mark.parametrize("vocabulary", [4, 40])
def test_ter_equals_sacrebleu_in_every_sentence(max_words: int, num_pairs: int, vocabulary: int) -> None:
    """Short pairs, pairs longer than sacreBLEU's beam of 25 words, and pairs with more shifts than it tries."""
    rng = np.random.default_rng(max_words + vocabulary)
    references, hypotheses = ["", "a", "", "a b"], ["", "", "a", "b a"]
    for _ in range(num_pairs):
        words = [str(rng.integers(vocabulary)) for _ in range(int(rng.integers(1, max_words + 1)))]
        references.append(" ".join(words))
        hypotheses.append(" ".join(shuffled(words, rng, vocabulary)))
    statistics = Ter().extract_statistics(hypotheses, references)
    for row, hypothesis, reference in zip(statistics, hypotheses, references, strict=True):
        assert row.tolist() == sacrebleu_edits(Preset(), hypothesis, reference), (hypothesis, reference)


def test_ter_equals_sacrebleu_in_scripts_without_spaces() -> None:
    preset = find_preset("csl-daily")
    pairs = [("我今天很好", "今天我很好"), ("他2010年喜欢苹果。", "她喜欢2010苹果"), ("", "你好"), ("你 好", "你好")]
    for row, pair in zip(Ter(preset).extract_statistics(*zip(*pairs, strict=True)), pairs, strict=True):
        assert row.tolist() == sacrebleu_edits(preset, *pair), pair


def test_chrf_takes_its_statistics_from_chrf_plus_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an evaluation of two systems with page, the n-grams of each are counted once, and equal those of chrF2."""
    pairs = [(f"the cat sat on mat {n}", f"the cat {'sat' * (n % 3)} (on) mat.") for n in range(30)]
    files = [
        write_predictions(tmp_path / "a.jsonl", pairs),
        write_predictions(tmp_path / "b.jsonl", [(r, r) for r, _ in pairs]),
    ]
    num_counted: list[int] = []
    extract: Callable[..., object] = CHRF._extract_corpus_statistics

    def count_calls(metric: CHRF, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> object:
        num_counted.append(len(hypotheses))
        return extract(metric, hypotheses, references)

    monkeypatch.setattr(CHRF, "_extract_corpus_statistics", count_calls)
    evaluation = score_systems(
        read_systems([str(file) for file in files], None, "empty"), ScoringConfig(num_samples=0)
    )
    write_report(tmp_path / "report.html", evaluation)
    assert num_counted == [30, 30]
    references, hypotheses = zip(*pairs, strict=True)
    statistics = Chrf().extract_statistics(hypotheses, references)
    assert evaluation.results[0].scores["chrf2"] == float(Chrf().compute_scores(statistics.sum(axis=0))["chrf2"])
    assert (Chrf.select_statistics(ChrfPlusPlus().extract_statistics(hypotheses, references)) == statistics).all()
    page_data = (tmp_path / "report.html").read_text().split('id="data">')[1].split("</script>")[0]
    page_scores = [clip["scores"][0] for clip in json.loads(page_data)["clips"]]
    assert page_scores == [round(float(score), 1) for score in Chrf().compute_scores(statistics)["chrf2"]]
    gains = list(evaluation.results[1].analysis["gains"].values())
    assert gains == [round(100 - float(score), 2) for score in Chrf().compute_scores(statistics)["chrf2"]]
