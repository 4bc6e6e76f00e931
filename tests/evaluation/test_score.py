"""Scores equal those of the usual programs; files that cannot be compared are refused."""

import inspect
import itertools
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from rouge_score.rouge_scorer import RougeScorer

from signllava_cli.cli.evaluate import evaluate as eval_command
from signllava_cli.evaluation.metrics.all_metrics import METRICS
from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy, is_correct_reading
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.evaluation.metrics.text_metrics import (
    Bleu,
    Chrf,
    ChrfPlusPlus,
    ExactMatch,
    RougeL,
    RougeLMscoco,
    RougeLSeq2seq,
    Ter,
    Wer,
)
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import hash_ids

REFERENCES = [
    "Today my sister buys the coat.",
    "Tonight, the lamp falls!",
    "In winter grandmother hides.",
    "Yes.",
]
HYPOTHESES = ["Today my sister buys a coat.", "The lamp falls tonight.", "", "Yes."]


def write_predictions(file: Path, hypotheses: list[str], num_clips: int | None = None, **fields: object) -> Path:
    """Predictions of four clips, of which the file has the first `num_clips`, and their meta file."""
    rows = [
        Prediction("r", str(i), i, "translation", reference, hypothesis, **fields)  # type: ignore[arg-type]
        for i, (reference, hypothesis) in enumerate(zip(REFERENCES, hypotheses, strict=True))
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows[:num_clips]))
    meta = {"clips": 4, "split": "test", "clips_hash": hash_ids(row.id for row in rows)}
    (file.parent / "predictions.meta.json").write_text(json.dumps(meta))
    return file


def test_scores_and_signatures_equal_the_command_of_sacrebleu(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "hyp").write_text("\n".join(HYPOTHESES) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref"), "-i", str(tmp_path / "hyp"), "-w", "6"]
    scores = {
        key: (score, result["signature"])
        for metric in (Bleu(), Chrf(), ChrfPlusPlus(), Ter())
        for result in [metric.compute(predictions=HYPOTHESES, references=REFERENCES)]
        for key, score in result.items()
    }
    for key, options in (
        ("bleu4", ["-m", "bleu"]),
        ("chrf2", ["-m", "chrf"]),
        ("chrf++", ["-m", "chrf", "--chrf-word-order", "2"]),
        ("ter", ["-m", "ter"]),
    ):
        process = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        expected = json.loads(process.stdout)
        assert scores[key][0] == pytest.approx(expected["score"], abs=1e-5)
        assert scores[key][1] == expected["signature"]


def test_rouge_l_of_mscoco_weighs_recall_and_splits_at_spaces() -> None:
    """The formula of MS COCO's caption evaluation, worked out by hand: F of beta 1.2, 4 common words."""
    result = RougeLMscoco().compute(predictions=["a b c d x"], references=["a b c d e f"])
    precision, recall = 4 / 5, 4 / 6
    expected = 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert result["rougeL_mscoco"] == pytest.approx(expected)
    assert RougeLMscoco().compute(predictions=["", "a."], references=["a", "a"])["rougeL_mscoco"] == 0.0
    chinese = RougeLMscoco(find_preset("csl-daily")).compute(predictions=["你好吗"], references=["你好"])
    assert chinese["rougeL_mscoco"] > 70


def test_rouge_l_of_seq2seq_is_near_the_smaller_of_precision_and_recall() -> None:
    """The formula of google/seq2seq worked out by hand: F whose beta is precision over recall."""
    for hypothesis, precision, recall in (("a b c d x", 4 / 5, 4 / 6), ("a b c x y z u v", 3 / 8, 3 / 6)):
        beta = precision / recall
        expected = 100 * (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        result = RougeLSeq2seq().compute(predictions=[hypothesis], references=["a b c d e f"])
        assert result["rougeL_seq2seq"] == pytest.approx(expected)
        assert (
            100 * min(precision, recall) < result["rougeL_seq2seq"] < 200 * precision * recall / (precision + recall)
        )
    assert "seq2seq|rougeL|beta:precision/recall" in result["signature"]
    assert RougeLSeq2seq().compute(predictions=["", "a."], references=["a", "a"])["rougeL_seq2seq"] == 0.0


def test_both_rouge_l_of_csl_daily_take_each_character_as_a_word() -> None:
    """3 of 4 characters are common; with 2010 as one word, as in BLEU, none would be."""
    for metric_class, key in ((RougeLMscoco, "rougeL_mscoco"), (RougeLSeq2seq, "rougeL_seq2seq")):
        result = metric_class(find_preset("csl-daily")).compute(predictions=["2011"], references=["20 10"])
        assert result[key] == pytest.approx(75), metric_class
        assert "tok:characters" in result["signature"]


@pytest.mark.parametrize(
    ("preset", "shown"), [("how2sign", "ROUGE-L"), ("phoenix14t", "mscoco"), ("csl-daily", "mscoco")]
)
def test_tables_show_the_rouge_l_of_the_preset(
    signllava: Callable[..., Ended], tmp_path: Path, preset: str, shown: str
) -> None:
    file = write_predictions(tmp_path / "predictions.jsonl", HYPOTHESES)
    outputs = ["--latex", tmp_path / "t.tex", "--report", tmp_path / "r.html", "--out", tmp_path / "s.json"]
    process = signllava("eval", file, "--preset", preset, "--resample", "clips", *outputs)
    assert process.code == 0, process.err
    (header,) = [line for line in (tmp_path / "t.tex").read_text().splitlines() if "BLEU-1 &" in line]
    columns = header.removesuffix(r" \\").split(" & ")
    content = json.loads((tmp_path / "s.json").read_text())
    keys = {"ROUGE-L": "rougeL", "mscoco": "rougeL_mscoco", "seq2seq": "rougeL_seq2seq"}
    score_info = content["score_info"]
    assert [key for key in keys.values() if score_info[key]["label"] in columns] == [keys[shown]]
    assert f" {content['results'][0]['scores'][keys[shown]]:.2f} " in (tmp_path / "t.tex").read_text()
    assert f"{content['results'][0]['scores'][keys[shown]]:.2f}" in process.out
    page = (tmp_path / "r.html").read_text()
    assert all(f'<th scope="col">{score_info[key]["label"]}</th>' in page for key in keys.values())


def test_rouge_l_equals_rouge_score_in_every_sentence() -> None:
    """The metric does not use the scorer of the package, which imports all of NLTK."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    texts = [*HYPOTHESES, *REFERENCES, "It's 3.5 %, naïve-ish", "...", "a a b a", "b a a B"]
    pairs = list(itertools.product(texts, texts))
    hypotheses, references = zip(*pairs, strict=True)
    scores = RougeL().score_sentences(hypotheses, references)
    assert scores.tolist() == [
        scorer.score(reference, hypothesis)["rougeL"].fmeasure for hypothesis, reference in pairs
    ]


def test_every_metric_that_needs_data_has_its_option() -> None:
    parameters = inspect.signature(eval_command).parameters
    options = [entry.option for entry in METRICS.values() if entry.option is not None]
    assert options
    assert {option.removeprefix("--").replace("-", "_") for option in options} <= parameters.keys()


def test_every_score_has_its_own_key() -> None:
    keys = [key for entry in METRICS.values() for key in entry.metric.labels]
    assert len(set(keys)) == len(keys)


def test_every_metric_uses_the_words_of_its_preset() -> None:
    """One of five characters, one of four words differ: a metric with only a-z, or a sentence as a word, fails."""
    chinese, german = find_preset("csl-daily"), find_preset("phoenix14t")
    metric_class: Any
    for metric_class, key, expected in (
        (RougeL, "rougeL", 80),
        (RougeLMscoco, "rougeL_mscoco", 80),
        (Ter, "ter", 20),
        (Wer, "wer", 20),
    ):
        result = metric_class(chinese).compute(predictions=["他喜欢苹果"], references=["她喜欢苹果"])
        assert result[key] == pytest.approx(expected), metric_class
    texts = {"predictions": ["schönes Wetter über köln"], "references": ["schlechtes wetter über Köln"]}
    for metric_class, key in ((RougeL, "rougeL"), (RougeLMscoco, "rougeL_mscoco")):
        assert metric_class(german).compute(**texts)[key] == pytest.approx(75), metric_class
    same = {"predictions": ["Schönes Wetter"], "references": ["schönes wetter"]}
    for metric_class, key in ((Chrf, "chrf2"), (ExactMatch, "exact_match"), (Bleu, "bleu2")):
        assert metric_class(german).compute(**same)[key] == pytest.approx(100), metric_class
        assert metric_class().compute(**same)[key] < 100


def test_several_seeds_are_summarized(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    runs = [HYPOTHESES, REFERENCES, ["", "", "", "Yes."]]
    files = [
        write_predictions(tmp_path / str(n) / "predictions.jsonl", hypotheses) for n, hypotheses in enumerate(runs)
    ]
    baseline = write_predictions(tmp_path / "base" / "predictions.jsonl", HYPOTHESES[::-1])
    arguments = [baseline, *(f"ours={file}" for file in files)]
    process = signllava(
        "eval", *arguments, "--resample", "clips", "--latex", tmp_path / "t.tex", "--out", tmp_path / "s.json"
    )
    assert process.code == 0, process.err
    content = json.loads((tmp_path / "s.json").read_text())
    assert [result["name"] for result in content["results"]] == ["base", "ours 1", "ours 2", "ours 3"]
    (seeds,) = content["seeds"]
    assert (seeds["name"], seeds["runs"]) == ("ours", ["ours 1", "ours 2", "ours 3"])
    exact = [25.0, 100.0, 25.0]
    assert seeds["scores"]["exact_match"]["mean"] == pytest.approx(statistics.mean(exact))
    assert seeds["scores"]["exact_match"]["standard_deviation"] == pytest.approx(statistics.stdev(exact))
    lines = [line for line in (tmp_path / "t.tex").read_text().splitlines() if line.startswith(("ours", "base"))]
    assert [line.split(" & ")[0] for line in lines] == ["base", "ours"]
    assert rf"50.00 {{\small sd {statistics.stdev(exact):.2f}}}" in lines[1]


def test_the_means_of_several_seeds_are_compared_with_those_of_the_baseline(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    runs = {"ours": [REFERENCES, HYPOTHESES], "base": [HYPOTHESES, HYPOTHESES[::-1]]}
    arguments = [
        f"{name}={write_predictions(tmp_path / f'{name}{number}.jsonl', hypotheses)}"
        for name, group in runs.items()
        for number, hypotheses in enumerate(group)
    ]
    options = ["--resample", "clips", "--baseline", "base", "--out", tmp_path / "s.json"]
    process = signllava("eval", *arguments, *options, "--report", tmp_path / "r.html", "--latex", tmp_path / "t.tex")
    assert process.code == 0, process.err
    content = json.loads((tmp_path / "s.json").read_text())
    assert [result["name"] for result in content["results"]] == ["base 1", "base 2", "ours 1", "ours 2"]
    base, ours = content["seeds"]
    assert (base["name"], base["against_baseline"]) == ("base", {})
    comparison = ours["against_baseline"]["exact_match"]
    difference = ours["scores"]["exact_match"]["mean"] - base["scores"]["exact_match"]["mean"]
    assert comparison["difference"] == pytest.approx(difference)
    assert difference > 0
    assert 0 < comparison["randomization_p"] <= 1
    assert "Means against base" in process.out
    assert "difference of the means from that of base" in (tmp_path / "r.html").read_text()
    assert "% *: the mean differs from that of base, p < 0.05" in (tmp_path / "t.tex").read_text()
    refused = signllava("eval", *arguments, "--baseline", "other", "--out", tmp_path / "s.json")
    assert (refused.code, "expected one of ours, base, ours 1" in refused.err) == (2, True)


def test_names_are_distinguished_from_paths(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "lr=3" / "predictions.jsonl", HYPOTHESES)
    out = ["--samples", 0, "--out", tmp_path / "s.json"]
    assert signllava("eval", path, *out).code == 0
    assert json.loads((tmp_path / "s.json").read_text())["results"][0]["name"] == "lr=3"
    process = signllava("eval", f"a={path}", path, f"={path}", *out)
    assert (process.code, "expected NAME=FILE" in process.err) == (2, True)
    process = signllava("eval", f"a={path}", f"b={path}", *out)
    assert (process.code, "b has the same hypotheses as a" in " ".join(process.out.split())) == (0, True)


def test_bleu_n_is_a_corpus_bleu_of_that_order() -> None:
    from sacrebleu.metrics import BLEU

    scores = Bleu().compute(predictions=HYPOTHESES, references=REFERENCES)
    bleu4 = BLEU().corpus_score(HYPOTHESES, [REFERENCES])
    for order in (1, 2, 3):
        expected = BLEU(max_ngram_order=order).corpus_score(HYPOTHESES, [REFERENCES]).score
        assert scores[f"bleu{order}"] == pytest.approx(expected, rel=1e-12)
        assert scores[f"bleu{order}"] != pytest.approx(bleu4.precisions[order - 1])


def test_exact_match_and_context_bound_readings_compare_whole_words() -> None:
    assert ExactMatch().compute(predictions=HYPOTHESES, references=REFERENCES)["exact_match"] == 25.0
    assert is_correct_reading("He hides the SPADE.", "spade", ["pan", "drum"])
    assert not is_correct_reading("He hides the spades.", "spade", ["pan"])
    assert not is_correct_reading("The spade, the pan.", "spade", ["pan"])
    result = ContextBoundAccuracy().compute(
        predictions=["a pan", "a drum", "", "pan drum"], references=["pan"] * 4, others=[["drum"]] * 4
    )
    assert result["context_bound_accuracy"] == 25.0


def test_all_clips_of_a_file_are_scored_and_an_empty_hypothesis_counts(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    assert signllava("eval", write_predictions(tmp_path / "predictions.jsonl", HYPOTHESES)).code == 0
    (result,) = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert (result["clips"], result["context_bound_clips"], result["empty_hypotheses"]) == (4, 0, 1)
    scorer = RougeScorer(["rougeL"])
    expected = [
        scorer.score(reference, hypothesis)["rougeL"].fmeasure
        for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True)
    ]
    assert result["scores"]["rougeL"] == pytest.approx(25 * sum(expected))
    assert set(result["signatures"]) == {
        "Bleu",
        "Chrf",
        "ChrfPlusPlus",
        "Ter",
        "RougeL",
        "RougeLMscoco",
        "RougeLSeq2seq",
        "Wer",
        "ExactMatch",
    }


def test_eval_prints_signatures_and_writes_scores(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    mark = {"needs": "window", "reading": "sister", "others": ["doctor"]}
    one = write_predictions(tmp_path / "a" / "predictions.jsonl", HYPOTHESES, context_bound=mark)
    two = write_predictions(tmp_path / "b" / "predictions.jsonl", REFERENCES, context_bound=mark)
    process = signllava("eval", one.parent, two)
    assert process.code == 0, process.err
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in process.out
    scores = json.loads((tmp_path / "scores.json").read_text())  # in the folder of both folders
    assert [result["scores"]["exact_match"] for result in scores["results"]] == [25.0, 100.0]
    assert [result["scores"]["context_bound_accuracy"] for result in scores["results"]] == [25.0, 25.0]
    assert scores["results"][1]["against_baseline"]["context_bound_accuracy"]["randomization_p"] == 1.0


def test_files_that_cannot_be_compared_are_refused(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    complete = write_predictions(tmp_path / "a" / "predictions.jsonl", HYPOTHESES)
    partial = write_predictions(tmp_path / "b" / "predictions.jsonl", HYPOTHESES, num_clips=3)
    process = signllava("eval", partial)
    assert (process.code, "has 3 of 4 clips of split test" in process.err) == (2, True)
    (partial.parent / "predictions.meta.json").unlink()
    assert "cannot check whether clips are missing" in signllava("eval", partial).out
    process = signllava("eval", complete, partial)
    assert (process.code, "have different clips (3 and 4)" in process.err) == (2, True)
    assert "or the 3 common clips with --intersection" in process.err


def test_files_without_a_common_clip_are_refused_with_a_hint_at_their_splits(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    dev = write_predictions(tmp_path / "dev" / "predictions.jsonl", HYPOTHESES)
    test = write_predictions(tmp_path / "test" / "predictions.jsonl", HYPOTHESES)
    test.write_text(re.sub(r'"recording": "', '"recording": "test-', test.read_text()))
    (test.parent / "predictions.meta.json").unlink()
    process = signllava("eval", dev, test)
    assert (process.code, "have no clip in common, as if of different splits" in process.err) == (2, True)
    assert "--intersection" not in process.err


def test_a_path_of_a_metric_may_start_with_the_home_folder(
    signllava: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "stop.txt").write_text("the\n")
    file = write_predictions(tmp_path / "predictions.jsonl", HYPOTHESES)
    ended = signllava("eval", file, "--stop-list", "~/stop.txt", "--samples", 0)
    assert ended.code == 0, ended.err


def test_eval_overwrites_only_scores(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    file = write_predictions(tmp_path / "predictions.jsonl", HYPOTHESES)
    before = file.read_text()
    assert signllava("eval", file, "--out", tmp_path / "s.json").code == 0
    assert signllava("eval", file, "--out", tmp_path / "s.json").code == 0
    assert signllava("eval", file, "--out", file).code == 2
    assert file.read_text() == before
    scores = tmp_path / "scores.json"  # of another program
    scores.write_text("{}")
    assert signllava("eval", file).err.startswith(f"error: {scores} exists and is not a scores file of signllava: ")


NULL_HYPOTHESIS = json.dumps({**vars(Prediction("r", "9", 9, "t", "", "")), "hypothesis": None})


@pytest.mark.parametrize("line", ["{", '{"a": 1}', "[]", NULL_HYPOTHESIS])
def test_the_error_for_damaged_predictions_names_the_line(
    signllava: Callable[..., Ended], tmp_path: Path, line: str
) -> None:
    file = write_predictions(tmp_path / "predictions.jsonl", HYPOTHESES)
    file.write_text(file.read_text() + line + "\n")
    process = signllava("eval", file)
    assert process.code == 2
    assert f"{file}, line 5: " in process.err
    write_predictions(file, HYPOTHESES)
    file.write_text(file.read_text() * 2)
    assert "line 5: clip r/0 is already in an earlier line" in signllava("eval", file).err
