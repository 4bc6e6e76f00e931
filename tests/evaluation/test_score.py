"""Scores against the tools that people cite, and files that cannot be compared."""

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from rouge_score.rouge_scorer import RougeScorer

from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy, is_read_right
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


def written(file: Path, hypotheses: list[str], clips: int | None = None, **fields: object) -> Path:
    rows = [
        Prediction("r", str(i), i, "translation", reference, hypothesis, **fields)  # type: ignore[arg-type]
        for i, (reference, hypothesis) in enumerate(zip(REFERENCES, hypotheses, strict=True))
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows[:clips]))
    meta = {"clips": 4, "split": "test", "clips_hash": hash_ids(row.id for row in rows)}
    (file.parent / "predictions.meta.json").write_text(json.dumps(meta))
    return file


def test_scores_and_signatures_equal_the_command_of_sacrebleu(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "hyp").write_text("\n".join(HYPOTHESES) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref"), "-i", str(tmp_path / "hyp"), "-w", "6"]
    ours = {
        key: (score, result["signature"])
        for metric in (Bleu(), Chrf(), ChrfPlusPlus(), Ter())
        for result in [metric.compute(predictions=HYPOTHESES, references=REFERENCES) or {}]
        for key, score in result.items()
    }
    for key, options in (
        ("bleu4", ["-m", "bleu"]),
        ("chrf2", ["-m", "chrf"]),
        ("chrf++", ["-m", "chrf", "--chrf-word-order", "2"]),
        ("ter", ["-m", "ter"]),
    ):
        ended = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        theirs = json.loads(ended.stdout)
        assert ours[key][0] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours[key][1] == theirs["signature"]


def test_rouge_l_of_mscoco_weighs_recall_and_reads_what_stands_between_spaces() -> None:
    """The formula of MS COCO's caption evaluation, worked out by hand: F of beta 1.2, 4 words in common."""
    result = RougeLMscoco().compute(predictions=["a b c d x"], references=["a b c d e f"])
    precision, recall = 4 / 5, 4 / 6
    expected = 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert result["rougeL_mscoco"] == pytest.approx(expected)
    assert RougeLMscoco().compute(predictions=["", "a."], references=["a", "a"])["rougeL_mscoco"] == 0.0
    chinese = RougeLMscoco(find_preset("csl-daily")).compute(predictions=["你好吗"], references=["你好"])
    assert chinese["rougeL_mscoco"] > 70


def test_rouge_l_of_seq2seq_lies_near_the_smaller_of_precision_and_recall() -> None:
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


def test_both_rouge_l_of_csl_daily_read_every_character_alone() -> None:
    """3 of 4 characters; whoever reads 2010 as one word, as BLEU does, has 0 in common."""
    for kind, key in ((RougeLMscoco, "rougeL_mscoco"), (RougeLSeq2seq, "rougeL_seq2seq")):
        result = kind(find_preset("csl-daily")).compute(predictions=["2011"], references=["20 10"])
        assert result[key] == pytest.approx(75), kind
        assert "tok:characters" in result["signature"]


@pytest.mark.parametrize(
    ("preset", "shown"), [("how2sign", "ROUGE-L"), ("phoenix14t", "mscoco"), ("csl-daily", "mscoco")]
)
def test_tables_show_the_rouge_l_of_their_preset(
    signllava: Callable[..., Ended], tmp_path: Path, preset: str, shown: str
) -> None:
    file = written(tmp_path / "predictions.jsonl", HYPOTHESES)
    outputs = ["--latex", tmp_path / "t.tex", "--report", tmp_path / "r.html", "--out", tmp_path / "s.json"]
    ended = signllava("eval", file, "--preset", preset, "--resample", "clips", *outputs)
    assert ended.code == 0, ended.err
    (head,) = [line for line in (tmp_path / "t.tex").read_text().splitlines() if "BLEU-1 &" in line]
    columns = head.removesuffix(r" \\").split(" & ")
    content = json.loads((tmp_path / "s.json").read_text())
    keys = {"ROUGE-L": "rougeL", "mscoco": "rougeL_mscoco", "seq2seq": "rougeL_seq2seq"}
    figures = content["figures"]
    assert [key for key in keys.values() if figures[key]["label"] in columns] == [keys[shown]]
    assert f" {content['results'][0]['scores'][keys[shown]]:.2f} " in (tmp_path / "t.tex").read_text()
    assert f"{content['results'][0]['scores'][keys[shown]]:.2f}" in ended.out
    page = (tmp_path / "r.html").read_text()
    assert all(f'<th scope="col">{figures[key]["label"]}</th>' in page for key in keys.values())


def test_rouge_l_is_that_of_rouge_score_in_every_sentence() -> None:
    """Which is read without the package's scorer, as that imports the whole of NLTK."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    texts = [*HYPOTHESES, *REFERENCES, "It's 3.5 %, naïve-ish", "...", "a a b a", "b a a B"]
    pairs = list(itertools.product(texts, texts))
    found = RougeL().of_clips([said for said, _ in pairs], [meant for _, meant in pairs])
    assert found.tolist() == [scorer.score(meant, said)["rougeL"].fmeasure for said, meant in pairs]


def test_every_metric_reads_the_words_of_its_preset() -> None:
    """One of five characters, one of four words differ: who reads a-z alone, or sentences as words, fails."""
    chinese, german = find_preset("csl-daily"), find_preset("phoenix14t")
    for kind, key, expected in (
        (RougeL, "rougeL", 80),
        (RougeLMscoco, "rougeL_mscoco", 80),
        (Ter, "ter", 20),
        (Wer, "wer", 20),
    ):
        result = kind(chinese).compute(predictions=["他喜欢苹果"], references=["她喜欢苹果"])
        assert result[key] == pytest.approx(expected), kind
    texts = {"predictions": ["schönes Wetter über köln"], "references": ["schlechtes wetter über Köln"]}
    for kind, key in ((RougeL, "rougeL"), (RougeLMscoco, "rougeL_mscoco")):
        assert kind(german).compute(**texts)[key] == pytest.approx(75), kind
    same = {"predictions": ["Schönes Wetter"], "references": ["schönes wetter"]}
    for kind, key in ((Chrf, "chrf2"), (ExactMatch, "exact_match"), (Bleu, "bleu2")):
        assert kind(german).compute(**same)[key] == pytest.approx(100), kind
        assert kind().compute(**same)[key] < 100


def test_several_seeds_are_summarized(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    runs = [HYPOTHESES, REFERENCES, ["", "", "", "Yes."]]
    files = [written(tmp_path / str(n) / "predictions.jsonl", said) for n, said in enumerate(runs)]
    base = written(tmp_path / "base" / "predictions.jsonl", HYPOTHESES[::-1])
    given = [base, *(f"ours={file}" for file in files)]
    ended = signllava(
        "eval", *given, "--resample", "clips", "--latex", tmp_path / "t.tex", "--out", tmp_path / "s.json"
    )
    assert ended.code == 0, ended.err
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


def test_names_are_told_from_paths(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    odd = written(tmp_path / "lr=3" / "predictions.jsonl", HYPOTHESES)
    out = ["--samples", 0, "--out", tmp_path / "s.json"]
    assert signllava("eval", odd, *out).code == 0
    assert json.loads((tmp_path / "s.json").read_text())["results"][0]["name"] == "lr=3"
    ended = signllava("eval", f"a={odd}", odd, f"={odd}", *out)
    assert (ended.code, "expected NAME=FILE" in ended.err) == (2, True)
    ended = signllava("eval", f"a={odd}", f"b={odd}", *out)
    assert (ended.code, "b says of every clip what a says" in " ".join(ended.out.split())) == (0, True)


def test_bleu_n_is_a_corpus_bleu_of_that_order() -> None:
    from sacrebleu.metrics import BLEU

    ours = Bleu().compute(predictions=HYPOTHESES, references=REFERENCES)
    assert ours is not None
    four = BLEU().corpus_score(HYPOTHESES, [REFERENCES])
    for order in (1, 2, 3):
        expected = BLEU(max_ngram_order=order).corpus_score(HYPOTHESES, [REFERENCES]).score
        assert ours[f"bleu{order}"] == pytest.approx(expected, rel=1e-12)
        assert ours[f"bleu{order}"] != pytest.approx(four.precisions[order - 1])


def test_exact_match_and_reading() -> None:
    assert ExactMatch().compute(predictions=HYPOTHESES, references=REFERENCES)["exact_match"] == 25.0
    assert is_read_right("He hides the SPADE.", "spade", ["pan", "drum"])
    assert not is_read_right("He hides the spades.", "spade", ["pan"])
    assert not is_read_right("The spade, the pan.", "spade", ["pan"])
    result = ContextBoundAccuracy().compute(
        predictions=["a pan", "a drum", "", "pan drum"], references=["pan"] * 4, others=[["drum"]] * 4
    )
    assert result["context_bound_accuracy"] == 25.0


def test_a_file_is_scored_whole_and_an_empty_hypothesis_counts(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    assert signllava("eval", written(tmp_path / "predictions.jsonl", HYPOTHESES)).code == 0
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
    bound = {"needs": "window", "reading": "sister", "others": ["doctor"]}
    one = written(tmp_path / "a" / "predictions.jsonl", HYPOTHESES, context_bound=bound)
    two = written(tmp_path / "b" / "predictions.jsonl", REFERENCES, context_bound=bound)
    ended = signllava("eval", one.parent, two)
    assert ended.code == 0, ended.err
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in ended.out
    scores = json.loads((tmp_path / "scores.json").read_text())  # where both folders lie
    assert [result["scores"]["exact_match"] for result in scores["results"]] == [25.0, 100.0]
    assert [result["scores"]["context_bound_accuracy"] for result in scores["results"]] == [25.0, 25.0]
    assert scores["results"][1]["against_first"]["context_bound_accuracy"]["randomization_p"] == 1.0


def test_what_cannot_be_compared_is_refused(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    whole = written(tmp_path / "a" / "predictions.jsonl", HYPOTHESES)
    part = written(tmp_path / "b" / "predictions.jsonl", HYPOTHESES, clips=3)
    ended = signllava("eval", part)
    assert (ended.code, "holds 3 of 4 clips of split test" in ended.err) == (2, True)
    (part.parent / "predictions.meta.json").unlink()
    assert "whether clips are missing cannot be told" in signllava("eval", part).out
    ended = signllava("eval", whole, part)
    assert (ended.code, "hold different clips (3 and 4)" in ended.err) == (2, True)


def test_eval_writes_over_nothing_but_scores(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    file = written(tmp_path / "predictions.jsonl", HYPOTHESES)
    before = file.read_text()
    assert signllava("eval", file, "--out", tmp_path / "s.json").code == 0
    assert signllava("eval", file, "--out", tmp_path / "s.json").code == 0
    assert signllava("eval", file, "--out", file).code == 2
    assert file.read_text() == before


HYPOTHESIS_OF_ANOTHER_TYPE = json.dumps({**vars(Prediction("r", "9", 9, "t", "", "")), "hypothesis": None})


@pytest.mark.parametrize("line", ["{", '{"a": 1}', "[]", HYPOTHESIS_OF_ANOTHER_TYPE])
def test_damaged_predictions_name_the_line(signllava: Callable[..., Ended], tmp_path: Path, line: str) -> None:
    file = written(tmp_path / "predictions.jsonl", HYPOTHESES)
    file.write_text(file.read_text() + line + "\n")
    ended = signllava("eval", file)
    assert ended.code == 2
    assert "line 5: not a prediction" in ended.err
    written(file, HYPOTHESES)
    file.write_text(file.read_text() * 2)
    assert "line 5: clip r/0 is already in an earlier line" in signllava("eval", file).err
