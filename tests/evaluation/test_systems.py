"""Input files of all formats, which clips are scored, and yes/no answers."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from signllava_cli.evaluation.metrics.yes_no import YesNo
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import hash_ids

Command = Callable[..., Ended]
TEXTS = {
    "v1/a": ("One man sees.", "One man sees."),
    "v1/b": ("Two women go.", "A woman goes."),
    "v2/c": ("No.", "Yes."),
}


def prediction(id_: str, context_source: str = "none") -> Prediction:
    recording, clip = id_.split("/")
    return Prediction(recording, clip, 0, "translation", *TEXTS[id_], context_source=context_source)


def write_predictions(file: Path, ids: list[str]) -> Path:
    rows = [prediction(id_) for id_ in ids]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return file


def write_sign_llava_json(file: Path) -> Path:
    content: dict[str, Any] = {"v1": {"clip_order": ["a", "b"]}, "v2": {"clip_order": ["c"]}}
    for id_, (reference, hypothesis) in TEXTS.items():
        recording, clip = id_.split("/")
        content[recording][clip] = {"translation": reference, "hypothesis": hypothesis}
    file.write_text(json.dumps(content))
    return file


def write_csv(file: Path, texts: dict[str, str]) -> Path:
    with open(file, "w", newline="") as handle:
        csv.writer(handle).writerows([("uid", "text"), *texts.items()])
    return file


def score(signllava: Command, tmp_path: Path, *options: object) -> dict[str, Any]:
    """The only result in scores.json, and the output of the command."""
    process = signllava("eval", *options, "--samples", 0, "--out", tmp_path / "out.json")
    assert process.code == 0, process.err
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    return {**result, "output": process.out}


def test_every_file_format_gives_the_same_scores(signllava: Command, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "ours.jsonl", list(TEXTS))
    texts = {id_: hypothesis for id_, (_, hypothesis) in TEXTS.items()}
    (tmp_path / "hyp.txt").write_text("".join(f"{hypothesis}\n" for _, hypothesis in TEXTS.values()))
    (tmp_path / "ref.txt").write_text("".join(f"{reference}\n" for reference, _ in TEXTS.values()))
    clip_names = write_csv(tmp_path / "names.csv", {id_.split("/")[1]: text for id_, text in texts.items()})
    results = [
        score(signllava, tmp_path, predictions),
        score(signllava, tmp_path, write_sign_llava_json(tmp_path / "sign_llava.json")),
        score(signllava, tmp_path, write_csv(tmp_path / "h.csv", texts), "--references", predictions),
        score(signllava, tmp_path, clip_names, "--references", predictions),
        score(signllava, tmp_path, "--hyp", tmp_path / "hyp.txt", "--ref", tmp_path / "ref.txt"),
    ]
    assert all(result["scores"] == results[0]["scores"] for result in results)
    assert len({result["clips_hash"] for result in results[:4]}) == 1


@pytest.mark.reliability("Bad input", "a file that is read in another way than its author meant is refused")
def test_tables_are_known_by_their_suffix_in_any_case(signllava: Command, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.jsonl", list(TEXTS))
    table = write_csv(tmp_path / "h.csv", {id_: hypothesis for id_, (_, hypothesis) in TEXTS.items()})
    upper, tabs = tmp_path / "h2.CSV", tmp_path / "h3.tsv"
    upper.write_text(table.read_text())
    tabs.write_text(table.read_text().replace(",", "\t"))
    scores = [
        score(signllava, tmp_path, file, "--references", predictions)["scores"] for file in (table, upper, tabs)
    ]
    assert scores[0] == scores[1] == scores[2]
    json_file = write_sign_llava_json(tmp_path / "s.JSON")
    assert score(signllava, tmp_path, json_file)["scores"] == scores[0]


@pytest.mark.reliability("Bad input", "a file that is read in another way than its author meant is refused")
@pytest.mark.parametrize("key", ["hypothesis", "reference"])
def test_a_prediction_with_two_values_of_one_key_is_refused(signllava: Command, tmp_path: Path, key: str) -> None:
    file = write_predictions(tmp_path / "p.jsonl", list(TEXTS))
    first, *others = file.read_text().splitlines()
    file.write_text("\n".join([*others, first[:-1] + f', "{key}": "Other text."}}', ""]))
    process = signllava("eval", file, "--samples", 0)
    assert process.code == 2
    assert process.err.splitlines() == [
        f"error: {file}, line 3: not a prediction (the key '{key}' is given twice); remove one."
    ]


def test_a_text_that_is_no_sentence_is_refused(signllava: Command, tmp_path: Path) -> None:
    """chrF of a text of 10 MB, such as a file without line breaks, would take gigabytes of memory."""
    file = write_csv(tmp_path / "h.csv", {"v/a": "x" * 100_001})
    ended = signllava("eval", file, "--references", write_csv(tmp_path / "r.csv", {"v/a": "x"}), "--samples", 0)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {file}: a text of clip v/a has 100,001 characters; ")


@pytest.mark.reliability("Bad input", "a file that is read in another way than its author meant is refused")
@pytest.mark.parametrize("options", [["--references", "gold.jsonl"], ["--missing", "exclude"], ["--intersection"]])
def test_plain_texts_are_not_scored_with_options_that_do_not_apply(
    signllava: Command, tmp_path: Path, options: list[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one line\n")
    process = signllava("eval", "--hyp", texts, "--ref", texts, *options, "--samples", 0)
    assert process.code == 2
    assert f"cannot be combined with {options[0]}" in process.err
    assert not (tmp_path / "scores.json").exists()


def test_missing_clips_score_as_empty_unless_excluded_and_extra_clips_are_listed(
    signllava: Command, tmp_path: Path
) -> None:
    references = write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    part = write_csv(tmp_path / "h.csv", {"v1/a": "One man sees.", "v9/z": "Who?"})
    empty = score(signllava, tmp_path, part, "--references", references)
    assert (empty["clips"], empty["missing"], empty["extra"]) == (3, ["v1/b", "v2/c"], ["v9/z"])
    assert empty["scores"]["exact_match"] == pytest.approx(100 / 3)
    assert "2 clips have no hypothesis, scored as empty (v1/b, v2/c)" in empty["output"]
    excluded = score(signllava, tmp_path, part, "--references", references, "--missing", "exclude")
    assert (excluded["clips"], excluded["scores"]["exact_match"]) == (1, 100)
    assert "no hypothesis, skipped" in excluded["output"]


def test_files_with_different_clips_need_the_option_intersection(signllava: Command, tmp_path: Path) -> None:
    one, two = (
        write_predictions(tmp_path / "one.jsonl", ["v1/a", "v1/b"]),
        write_predictions(tmp_path / "two.jsonl", ["v1/b", "v2/c"]),
    )
    process = signllava("eval", one, two)
    assert process.code == 2
    assert "the 1 common clips with --intersection" in process.err
    process = signllava("eval", one, two, "--intersection", "--samples", 0, "--out", tmp_path / "s.json")
    assert process.code == 0, process.err
    assert [result["clips"] for result in json.loads((tmp_path / "s.json").read_text())["results"]] == [1, 1]
    other = tmp_path / "other.jsonl"
    other.write_text(one.read_text().replace("Two women go.", "Three."))
    process = signllava("eval", one, other)
    assert process.code == 2
    assert "different references or questions for 1 clip (v1/b)" in process.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\na,b\n", "expected the columns uid and text"),
        ("uid,text\nv1/a,x\nv1/a,y\n", "is there twice"),
        ("uid,text\nnobody,x\n", "none of its clips is among the references"),
        ('uid,text\nv1/a,"x\n', "cannot be read"),
        ("uid,text\nv1/a,Yes, one man.\n", "line 2: more columns than names"),
        ("uid,text\n", "has no texts"),
    ],
)
def test_invalid_csv_files_are_refused(signllava: Command, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "h.csv").write_text(content)
    process = signllava(
        "eval", tmp_path / "h.csv", "--references", write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    )
    assert (process.code, process.err.count("\n")) == (2, 1)
    assert message in process.err


def test_contradicting_options_are_refused(signllava: Command, tmp_path: Path) -> None:
    file = write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    for options in (
        [],
        ["--hyp", file],
        [file, "--preset", "klingon"],
        [file, "--split", "test"],
        [file, "--references", file.with_suffix(".txt")],
        ["--ref", file],
        [file, "--bleurt", tmp_path],
    ):
        process = signllava("eval", *options)
        assert (process.code, process.err.count("\n")) == (2, 1), options
    for option, choices in (("--missing", "'empty', 'exclude'"), ("--resample", "'recordings', 'clips'")):
        process = signllava("eval", file, option, "maybe")
        assert (process.code, f"'maybe' is not one of {choices}" in process.err) == (2, True), process.err


def test_a_stop_list_gives_reduced_bleu_with_the_number_of_pairs(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("# function words\nno\nyes\n")
    file = write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    result = score(signllava, tmp_path, file, "--stop-list", tmp_path / "stop.txt")
    assert result["scores"]["rbleu_pairs"] == 2  # "No." is empty without its stop word
    assert "reduced BLEU counts 2 of 3 pairs" in result["output"]
    assert "preset how2sign" in result["output"]
    assert "stop:stop.txt-" in result["signatures"]["ReducedBleu"]


def test_yes_no_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    references = [rng.integers(2, size=int(rng.integers(1, 5))) for _ in range(80)]
    answers = [np.where(rng.random(len(items)) < 0.3, 1 - items, items) for items in references]

    def as_text(items: np.ndarray) -> str:
        return ", ".join(["no", "yes"][item] for item in items)

    scores = YesNo().compute(predictions=[*map(as_text, answers)], references=[*map(as_text, references)])
    all_references, all_answers = np.concatenate(references), np.concatenate(answers)
    precision, recall, f1, _ = precision_recall_fscore_support(all_references, all_answers, average="binary")
    assert scores["accuracy"] == pytest.approx(100 * accuracy_score(all_references, all_answers))
    assert [scores[key] for key in ("precision", "recall", "f1")] == pytest.approx(
        [100 * precision, 100 * recall, 100 * f1]
    )
    assert scores["malformed"] == 0


def test_malformed_answers_are_counted_and_not_truncated() -> None:
    scores = YesNo().compute(
        predictions=["yes", "yes, no", "Perhaps.", "No."], references=["yes, no", "yes, no", "yes", "no"]
    )
    assert scores["malformed"] == pytest.approx(100 * 3 / 6)
    assert scores["accuracy"] == pytest.approx(100 * 3 / 6)
    assert (scores["precision"], scores["recall"]) == (100, pytest.approx(100 / 3))


def test_yes_no_predictions_of_generate_are_scored_without_clips_that_have_no_question(
    signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["--split", "dev", "--max-new-tokens", 4, "--beams", 1, "--task", "one_word_present"]
    assert signllava("generate", "-c", run, *options, "--context-source", "none", "--out", tmp_path / "p").code == 0
    result = score(signllava, tmp_path, tmp_path / "p")
    assert set(result["scores"]) == {"items", "accuracy", "precision", "recall", "f1", "malformed"}


def test_a_run_is_compared_under_its_context_sources_in_one_command(
    signllava: Command, run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    options = [
        "--split",
        "dev",
        "--set",
        "generate.max_new_tokens=5",
        "--set",
        "generate.num_beams=1",
        "--samples",
        50,
    ]
    options += ["--context-sources", "none,gold,predicted", "--trials", 50, "--out", tmp_path / "s.json"]
    process = signllava("eval", copy, *options)
    assert process.code == 0, process.err
    results = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [result["context_source"] for result in results] == ["none", "gold", "predicted"]
    assert "bleu4" in results[2]["against_baseline"]
    again = signllava("eval", copy, *options)
    assert again.out.count("0 clips in 0.0 s") == 3


def test_predictions_with_other_settings_are_reported_and_kept(signllava: Command, run: Path, tmp_path: Path) -> None:
    """After `generate --beams 2`, eval decodes as in the recipe into another folder, and only once."""
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    settings = ["--set", "generate.max_new_tokens=5", "--set", "generate.num_beams=1"]
    generate = ["generate", "-c", copy, "--split", "dev", *settings, "--context-source", "none"]
    assert signllava(*generate, "--beams", 2).code == 0
    (folder,) = (copy / "predictions").iterdir()
    before = (folder / "predictions.jsonl").read_bytes()
    options = [copy, "--split", "dev", *settings, "--samples", 0, "--context-sources", "none"]
    for decoded in (len(before.splitlines()), 0):
        process = signllava("eval", *options, "--out", tmp_path / "s.json")
        assert process.code == 0, process.err
        output = " ".join(process.out.split())
        assert f"{folder} was made with generate.num_beams 2, not 1; using {folder}.2" in output
        assert f" {decoded} clips in " in output
    assert (folder / "predictions.jsonl").read_bytes() == before
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert (result["name"], result["file"]) == ("none", f"{folder}.2/predictions.jsonl")


def test_clips_that_sign_llava_dropped_are_missing_or_unscored(signllava: Command, tmp_path: Path) -> None:
    """A clip without a hypothesis is missing; a clip that only clip_order names is unscored without --references."""
    file = write_sign_llava_json(tmp_path / "sign_llava.json")
    content = json.loads(file.read_text())
    del content["v1"]["b"]["hypothesis"], content["v2"]["c"]
    file.write_text(json.dumps(content))
    result = score(signllava, tmp_path, file)
    assert (result["clips"], result["missing"], result["unscored"]) == (2, ["v1/b"], ["v2/c"])
    assert "v2/c" in result["output"]
    complete = score(
        signllava, tmp_path, file, "--references", write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    )
    assert (complete["clips"], complete["missing"], complete["context_source"]) == (3, ["v1/b", "v2/c"], "unknown")


def test_references_are_never_scored_as_hypotheses(signllava: Command, tmp_path: Path) -> None:
    file = write_sign_llava_json(tmp_path / "annotation.json")
    content = json.loads(file.read_text())
    for clips in content.values():
        for clip in clips.values():
            if isinstance(clip, dict):
                del clip["hypothesis"]
    file.write_text(json.dumps(content))
    process = signllava("eval", file)
    assert (process.code, "has no hypotheses" in process.err) == (2, True)


def test_the_context_of_the_references_is_not_that_of_another_system(signllava: Command, tmp_path: Path) -> None:
    """Also, two texts for one clip are refused, whichever uid they use."""
    file = write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    with_context = [{**row, "context": [row["reference"]], "context_source": "gold"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in with_context))
    result = score(signllava, tmp_path, write_csv(tmp_path / "h.csv", {"v1/a": "x", "b": "y"}), "--references", file)
    assert (result["context_source"], result["analysis"]["leaked_clips"]) == ("unknown", [])
    process = signllava("eval", write_csv(tmp_path / "twice.csv", {"v1/a": "x", "a": "y"}), "--references", file)
    assert (process.code, "v1/a is there twice" in process.err) == (2, True)


def test_the_intersection_has_only_clips_with_a_hypothesis_also_with_references(
    signllava: Command, tmp_path: Path
) -> None:
    file = write_predictions(tmp_path / "all.jsonl", list(TEXTS))
    part = write_csv(tmp_path / "part.csv", {"v1/a": "x", "v2/c": "y"})
    options = ["--references", file, "--samples", 0, "--out", tmp_path / "s"]
    for more, clips in (([], 3), (["--intersection"], 2)):
        process = signllava("eval", f"one={part}", f"two={file}", *options, *more)
        assert process.code == 0, process.err
        content = json.loads((tmp_path / "s" / "scores.json").read_text())
        assert [result["clips"] for result in content["results"]] == [clips, clips]
        assert content["sources"] == {"references": str(file), "missing": "empty", "intersection": bool(more)}


def test_several_plain_text_files_share_their_references(signllava: Command, tmp_path: Path) -> None:
    for name, text in (("ref", "a b\nc\n"), ("one", "a b\nc\n"), ("two", "a\nc\n")):
        (tmp_path / name).write_text(text)
    arguments = ["--hyp", tmp_path / "one", "--hyp", f"named={tmp_path / 'two'}", "--ref", tmp_path / "ref"]
    process = signllava("eval", *arguments, "--samples", 50, "--trials", 50, "--out", tmp_path / "s.json")
    assert process.code == 0, process.err
    results = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [(result["name"], result["scores"]["exact_match"]) for result in results] == [("one", 100), ("named", 50)]


def test_answers_are_scored_against_answers_to_the_same_question(signllava: Command, tmp_path: Path) -> None:
    def file(name: str, question: str | None, task: str = "one_word_present") -> Path:
        row = Prediction("r", "0", 0, task, "yes", "yes", question=question)
        (tmp_path / name).write_text(json.dumps(vars(row)) + "\n")
        return tmp_path / name

    fish, cat = file("fish.jsonl", "fish?"), file("cat.jsonl", "cat?")
    for options in (
        [fish, "--references", cat],
        [fish, cat],
        [fish, "--references", file("t.jsonl", None, "translation")],
    ):
        process = signllava("eval", *options)
        assert (process.code, "different" in process.err) == (2, True), process.err
    assert "expected one of translation" in signllava("eval", file("unknown.jsonl", None, "banana")).err


def test_inputs_and_files_of_other_programs_are_not_overwritten(signllava: Command, tmp_path: Path) -> None:
    for name in ("h.tex", "r.tex", "paper.tex", "site.html"):
        (tmp_path / name).write_text("a b\n")
    (tmp_path / "lm.json").write_text('{"results": {}}')
    pair = ["--hyp", tmp_path / "h.tex", "--ref", tmp_path / "r.tex", "--samples", 0]
    for more in (["--latex", "r.tex"], ["--latex", "paper.tex"], ["--report", "site.html"], ["--out", "lm.json"]):
        process = signllava("eval", *pair, more[0], tmp_path / more[1])
        assert (process.code, "choose another name" in " ".join(process.err.split())) == (2, True), process.err
    assert (tmp_path / "r.tex").read_text() == "a b\n"
    for _ in range(2):
        outputs = ["--latex", tmp_path / "t.tex", "--report", tmp_path / "t.html", "--out", tmp_path / "s.json"]
        assert signllava("eval", *pair, *outputs).code == 0


def write_context_experiment(folder: Path) -> Path:
    """Predictions under three context sources side by side, as `generate` writes them; `gold` sorts first."""
    for source in ("gold", "none", "predicted"):
        file = folder / f"step-000004.test.{source}" / "predictions.jsonl"
        file.parent.mkdir(parents=True)
        rows = [prediction(id_, context_source=source) for id_ in TEXTS]
        file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return folder


def test_a_folder_of_predictions_can_be_scored_again_with_output_in_it(signllava: Command, tmp_path: Path) -> None:
    """`signllava eval predictions/* ...` twice gives the same scores, with the system without context as baseline."""
    folder = write_context_experiment(tmp_path / "predictions")
    options = ["--samples", 20, "--trials", 20, "--report", folder / "report.html", "--latex", folder / "table.tex"]
    contents = []
    for _ in range(2):
        process = signllava("eval", *sorted(folder.iterdir()), *options, "--charts", folder / "charts")
        assert process.code == 0, process.err
        contents.append(json.loads((folder / "scores.json").read_text()))
        contents[-1].pop("date")
    assert contents[0] == contents[1]
    names = [f"step-000004.test.{source}" for source in ("none", "gold", "predicted")]
    assert [result["name"] for result in contents[0]["results"]] == names
    assert [bool(result["against_baseline"]) for result in contents[0]["results"]] == [False, True, True]
    for output in ("scores.json", "report.html", "table.tex", "charts"):
        assert f"{folder / output}: written by `signllava eval`, skipped" in process.out
    process = signllava("eval", folder / "scores.json", folder / "charts")
    assert (process.code, "there are no predictions" in process.err) == (2, True)
    process = signllava("eval", f"ours={folder / 'scores.json'}", folder / "step-000004.test.none")
    assert (process.code, "written by `signllava eval`; name predictions" in process.err) == (2, True)


def test_systems_with_other_decoding_settings_are_reported(signllava: Command, tmp_path: Path) -> None:
    folders = sorted(write_context_experiment(tmp_path / "predictions").iterdir())
    for folder, num_beams in zip(folders, (5, 5, 1), strict=True):
        decoding = {
            "context_source": folder.suffix[1:],
            "num_beams": num_beams,
            "seed": num_beams,
            "temperature": None,
        }
        meta = {"split": "test", "clips": len(TEXTS), "clips_hash": hash_ids(TEXTS), "decoding": decoding}
        (folder / "predictions.meta.json").write_text(json.dumps(meta))
    process = signllava("eval", *folders, "--samples", 0, "--out", tmp_path / "s.json")
    assert process.code == 0, process.err
    warnings = [line for line in " ".join(process.out.split()).split("warning: ")[1:] if "different settings" in line]
    assert len(warnings) == 1
    assert "test.none and step-000004.test.predicted" in warnings[0]
    assert "(num_beams 5 and 1)" in warnings[0]


def test_the_baseline_is_the_named_system_or_the_one_without_context_or_the_first(
    signllava: Command, tmp_path: Path
) -> None:
    folders = sorted(write_context_experiment(tmp_path / "predictions").iterdir())
    unknown = write_csv(tmp_path / "t5.csv", {id_: hypothesis for id_, (_, hypothesis) in TEXTS.items()})
    options = ["--samples", 0, "--out", tmp_path / "s.json"]
    references = ["--references", folders[0]]
    for arguments, baseline in (
        ([*folders, "--baseline", "step-000004.test.predicted"], "step-000004.test.predicted"),
        ([f"a={folders[0]}", f"none={folders[2]}", f"b={folders[1]}"], "none"),
        ([f"t5={unknown}", *folders, *references], "t5"),
        ([folders[2], f"t5={unknown}", *references, "--baseline", "t5"], "t5"),
    ):
        process = signllava("eval", *arguments, *options)
        assert process.code == 0, process.err
        content = json.loads((tmp_path / "s.json").read_text())
        assert (content["results"][0]["name"], content["baseline"]) == (baseline, baseline)
    process = signllava("eval", *folders, "--baseline", "gold")
    assert (process.code, "no system has this name; expected one of step-000004.test.gold" in process.err) == (
        2,
        True,
    )
