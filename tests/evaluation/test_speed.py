"""What `signllava eval` costs: its start, TER, chrF; and that none of it changes a score."""

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
from signllava_cli.evaluation.metrics.presets import Preset, find_preset
from signllava_cli.evaluation.metrics.text_metrics import Bleu, Chrf, ChrfPlusPlus, Ter
from signllava_cli.evaluation.reporting.html_report import write_report
from signllava_cli.evaluation.scoring import Scoring, score_systems
from signllava_cli.evaluation.systems import read_systems
from signllava_cli.generation.prediction import Prediction

HEAVY = ("torch", "transformers", "evaluate", "datasets", "pandas", "nltk", "sklearn", "matplotlib")
WITHOUT_HEAVY = (
    f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\nfrom signllava_cli.cli.main import run\nrun()\n"
)


def file_of(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    rows = [Prediction(f"r{n // 5}", str(n), n % 5, "translation", *pair) for n, pair in enumerate(pairs)]
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return path


def test_eval_runs_without_the_libraries_of_models(tmp_path: Path) -> None:
    """Two systems, scores, LaTeX and page; benchmarks/limits.py measures what it takes."""
    files = [
        file_of(tmp_path / f"{name}.jsonl", [(f"the cat sat on mat {n}", said) for n in range(20)])
        for name, said in (("one", "the cat sat"), ("two", "mat on sat cat the"))
    ]
    outputs = ["--out", tmp_path / "s.json", "--latex", tmp_path / "t.tex", "--report", tmp_path / "r.html"]
    command = [sys.executable, "-c", WITHOUT_HEAVY, "eval", *map(str, [*files, *outputs, "--trials", 1000])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "r.html").is_file()


def test_a_metric_is_an_evaluate_metric_for_who_wants_one() -> None:
    texts = {"predictions": ["a b c d", "a b"], "references": ["a b c e", "a b"]}
    metric = Bleu().as_evaluate_metric()
    assert isinstance(metric, evaluate.Metric)
    assert metric.compute(**texts) == Bleu().compute(**texts)
    for hypothesis, reference in zip(*texts.values(), strict=True):
        metric.add(prediction=hypothesis, reference=reference)
    assert metric.compute() == Bleu().compute(**texts)
    bound: Any = {"predictions": ["a pan", "a drum"], "references": ["pan", "pan"], "others": [["drum"], ["drum"]]}
    accuracy = ContextBoundAccuracy()
    assert accuracy.as_evaluate_metric().compute(**bound) == accuracy.compute(**bound)
    with pytest.raises(ValueError, match="3 hypotheses, 2 references"):
        Bleu().compute(predictions=["a"] * 3, references=["b"] * 2)


def sacrebleus_edits(preset: Preset, hypothesis: str, reference: str) -> list[float]:
    theirs = TER(asian_support=preset.asian, normalized=preset.asian)
    return [float(each) for each in theirs._extract_corpus_statistics([hypothesis], [[reference]])[0]]


def shuffled(words: list[str], rng: np.random.Generator, vocabulary: int) -> list[str]:
    """`words` with blocks moved, some replaced, some left out or repeated: what TER's shifts are made for."""
    said = list(words)
    for _ in range(int(rng.integers(0, 4))):
        start, end, to = sorted(rng.integers(0, len(said) + 1, 3).tolist())
        said = said[end:to] + said[:start] + said[start:end] + said[to:]
    said = [w if rng.random() < 0.8 else str(rng.integers(vocabulary)) for w in said if rng.random() < 0.9]
    return said * int(rng.choice([1, 1, 1, 1, 3]))


@pytest.mark.parametrize(("longest", "pairs"), [(8, 200), (30, 60), (75, 4)])
@pytest.mark.parametrize("vocabulary", [4, 40])
def test_ter_is_sacrebleus_in_every_sentence(longest: int, pairs: int, vocabulary: int) -> None:
    """Short pairs, those that sacreBLEU's beam of 25 words cuts, and those with more shifts than it tries."""
    rng = np.random.default_rng(longest + vocabulary)
    references, hypotheses = ["", "a", "", "a b"], ["", "", "a", "b a"]
    for _ in range(pairs):
        words = [str(rng.integers(vocabulary)) for _ in range(int(rng.integers(1, longest + 1)))]
        references.append(" ".join(words))
        hypotheses.append(" ".join(shuffled(words, rng, vocabulary)))
    found = Ter().counts(hypotheses, references)
    for row, hypothesis, reference in zip(found, hypotheses, references, strict=True):
        assert row.tolist() == sacrebleus_edits(Preset(), hypothesis, reference), (hypothesis, reference)


def test_ter_is_sacrebleus_in_scripts_without_spaces() -> None:
    preset = find_preset("csl-daily")
    pairs = [("我今天很好", "今天我很好"), ("他2010年喜欢苹果。", "她喜欢2010苹果"), ("", "你好"), ("你 好", "你好")]
    for row, pair in zip(Ter(preset).counts(*zip(*pairs, strict=True)), pairs, strict=True):
        assert row.tolist() == sacrebleus_edits(preset, *pair), pair


def test_chrf_has_the_counts_of_chrf_plus_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole evaluation of two systems, page included: n-grams of each are counted once, and equal chrF2's own."""
    pairs = [(f"the cat sat on mat {n}", f"the cat {'sat' * (n % 3)} (on) mat.") for n in range(30)]
    files = [file_of(tmp_path / "a.jsonl", pairs), file_of(tmp_path / "b.jsonl", [(r, r) for r, _ in pairs])]
    counted: list[int] = []
    extract: Callable[..., object] = CHRF._extract_corpus_statistics

    def counting(metric: CHRF, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> object:
        counted.append(len(hypotheses))
        return extract(metric, hypotheses, references)

    monkeypatch.setattr(CHRF, "_extract_corpus_statistics", counting)
    evaluation = score_systems(read_systems([str(file) for file in files], None, "empty"), Scoring(samples=0))
    write_report(tmp_path / "report.html", evaluation)
    assert counted == [30, 30]
    references, hypotheses = zip(*pairs, strict=True)
    own = Chrf().counts(hypotheses, references)
    assert evaluation.scored[0].figures["chrf2"] == float(Chrf().scores(own.sum(axis=0))["chrf2"])
    assert (Chrf.of_plus_plus(ChrfPlusPlus().counts(hypotheses, references)) == own).all()
    embedded = (tmp_path / "report.html").read_text().split('id="data">')[1].split("</script>")[0]
    shown = [clip["score"][0] for clip in json.loads(embedded)["clips"]]
    assert shown == [round(float(score), 1) for score in Chrf().scores(own)["chrf2"]]
    gains = list(evaluation.scored[1].analysis["gains"].values())
    assert gains == [round(100 - float(score), 2) for score in Chrf().scores(own)["chrf2"]]
