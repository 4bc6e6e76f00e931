"""Files of other systems, which clips count, and yes/no answers."""

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

Command = Callable[..., Ended]
TEXTS = {
    "v1/a": ("One man sees.", "One man sees."),
    "v1/b": ("Two women go.", "A woman goes."),
    "v2/c": ("No.", "Yes."),
}


def prediction(clip_id: str, **fields: Any) -> Prediction:
    """The prediction of a clip of TEXTS."""
    recording, clip = clip_id.split("/")
    return Prediction(recording, clip, 0, "translation", *TEXTS[clip_id], **fields)


def jsonl(file: Path, ids: list[str]) -> Path:
    rows = [prediction(id_) for id_ in ids]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return file


def research(file: Path) -> Path:
    content: dict[str, Any] = {"v1": {"clip_order": ["a", "b"]}, "v2": {"clip_order": ["c"]}}
    for id_, (reference, hypothesis) in TEXTS.items():
        recording, clip = id_.split("/")
        content[recording][clip] = {"translation": reference, "hypothesis": hypothesis}
    file.write_text(json.dumps(content))
    return file


def table(file: Path, texts: dict[str, str]) -> Path:
    with open(file, "w", newline="") as opened:
        csv.writer(opened).writerows([("uid", "text"), *texts.items()])
    return file


def scored(signllava: Command, tmp_path: Path, *options: object) -> dict[str, Any]:
    ended = signllava("eval", *options, "--samples", 0, "--out", tmp_path / "out.json")
    assert ended.code == 0, ended.err
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    return {**result, "said": ended.out}


def test_every_kind_of_file_gives_the_same_scores(signllava: Command, tmp_path: Path) -> None:
    ours = jsonl(tmp_path / "ours.jsonl", list(TEXTS))
    texts = {id_: hypothesis for id_, (_, hypothesis) in TEXTS.items()}
    (tmp_path / "hyp.txt").write_text("".join(f"{hypothesis}\n" for _, hypothesis in TEXTS.values()))
    (tmp_path / "ref.txt").write_text("".join(f"{reference}\n" for reference, _ in TEXTS.values()))
    named = table(tmp_path / "names.csv", {id_.split("/")[1]: text for id_, text in texts.items()})
    found = [
        scored(signllava, tmp_path, ours),
        scored(signllava, tmp_path, research(tmp_path / "research.json")),
        scored(signllava, tmp_path, table(tmp_path / "h.csv", texts), "--references", ours),
        scored(signllava, tmp_path, named, "--references", ours),
        scored(signllava, tmp_path, "--hyp", tmp_path / "hyp.txt", "--ref", tmp_path / "ref.txt"),
    ]
    assert all(each["scores"] == found[0]["scores"] for each in found)
    assert len({each["clips_hash"] for each in found[:4]}) == 1


def test_missing_clips_score_as_empty_unless_excluded_and_extra_ones_are_named(
    signllava: Command, tmp_path: Path
) -> None:
    references = jsonl(tmp_path / "all.jsonl", list(TEXTS))
    part = table(tmp_path / "h.csv", {"v1/a": "One man sees.", "v9/z": "Who?"})
    empty = scored(signllava, tmp_path, part, "--references", references)
    assert (empty["clips"], empty["missing"], empty["extra"]) == (3, ["v1/b", "v2/c"], ["v9/z"])
    assert empty["scores"]["exact_match"] == pytest.approx(100 / 3)
    assert "2 clips have no hypothesis, and score as empty hypotheses (v1/b, v2/c)" in empty["said"]
    left = scored(signllava, tmp_path, part, "--references", references, "--missing", "exclude")
    assert (left["clips"], left["scores"]["exact_match"]) == (1, 100)
    assert "are left out" in left["said"]


def test_different_clips_are_compared_only_where_all_have_them(signllava: Command, tmp_path: Path) -> None:
    one, two = jsonl(tmp_path / "one.jsonl", ["v1/a", "v1/b"]), jsonl(tmp_path / "two.jsonl", ["v1/b", "v2/c"])
    ended = signllava("eval", one, two)
    assert ended.code == 2
    assert "the 1 that all have with --intersection" in ended.err
    ended = signllava("eval", one, two, "--intersection", "--samples", 0, "--out", tmp_path / "s.json")
    assert ended.code == 0, ended.err
    assert [result["clips"] for result in json.loads((tmp_path / "s.json").read_text())["results"]] == [1, 1]
    other = tmp_path / "other.jsonl"
    other.write_text(one.read_text().replace("Two women go.", "Three."))
    ended = signllava("eval", one, other)
    assert ended.code == 2
    assert "different references or questions for 1 clips (v1/b)" in ended.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\na,b\n", "expected the columns uid and text"),
        ("uid,text\nv1/a,x\nv1/a,y\n", "stands twice"),
        ("uid,text\nnobody,x\n", "none of its clips is among the references"),
        ('uid,text\nv1/a,"x\n', "cannot be read"),
        ("uid,text\nv1/a,Yes, one man.\n", "line 2: more columns than names"),
        ("uid,text\n", "holds no texts"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(
    signllava: Command, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "h.csv").write_text(content)
    ended = signllava("eval", tmp_path / "h.csv", "--references", jsonl(tmp_path / "all.jsonl", list(TEXTS)))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err


def test_options_that_contradict_are_refused(signllava: Command, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "all.jsonl", list(TEXTS))
    for options in (
        [],
        ["--hyp", file],
        [file, "--preset", "klingon"],
        [file, "--missing", "maybe"],
        [file, "--resample", "x"],
        [file, "--split", "test"],
        [file, "--references", file.with_suffix(".txt")],
        ["--ref", file],
        [file, "--bleurt", tmp_path],
    ):
        ended = signllava("eval", *options)
        assert (ended.code, ended.err.count("\n")) == (2, 1), options


def test_a_stop_list_gives_reduced_bleu_with_the_number_of_pairs(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("# function words\nno\nyes\n")
    file = jsonl(tmp_path / "all.jsonl", list(TEXTS))
    found = scored(signllava, tmp_path, file, "--stop-list", tmp_path / "stop.txt")
    assert found["scores"]["rbleu_pairs"] == 2  # of "No." nothing is left
    assert "reduced BLEU counts 2 of 3 pairs" in found["said"]
    assert "preset how2sign" in found["said"]
    assert "stop:stop.txt-" in found["signatures"]["ReducedBleu"]


def test_yes_no_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    meant = [rng.integers(2, size=int(rng.integers(1, 5))) for _ in range(80)]
    said = [np.where(rng.random(len(each)) < 0.3, 1 - each, each) for each in meant]
    text = lambda answers: ", ".join(["no", "yes"][each] for each in answers)  # noqa: E731
    ours = YesNo().compute(predictions=[*map(text, said)], references=[*map(text, meant)])
    flat_meant, flat_said = np.concatenate(meant), np.concatenate(said)
    precision, recall, f1, _ = precision_recall_fscore_support(flat_meant, flat_said, average="binary")
    assert ours is not None
    assert ours["accuracy"] == pytest.approx(100 * accuracy_score(flat_meant, flat_said))
    assert [ours[key] for key in ("precision", "recall", "f1")] == pytest.approx(
        [100 * precision, 100 * recall, 100 * f1]
    )
    assert ours["malformed"] == 0


def test_malformed_answers_are_counted_and_not_cut_to_fit() -> None:
    ours = YesNo().compute(
        predictions=["yes", "yes, no", "Perhaps.", "No."], references=["yes, no", "yes, no", "yes", "no"]
    )
    assert ours is not None
    assert ours["malformed"] == pytest.approx(100 * 3 / 6)
    assert ours["accuracy"] == pytest.approx(100 * 3 / 6)
    assert (ours["precision"], ours["recall"]) == (100, pytest.approx(100 / 3))


def test_yes_no_predictions_of_generate_are_scored_without_what_was_not_asked(
    signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["--split", "dev", "--max-new-tokens", 4, "--beams", 1, "--task", "one_word_present"]
    assert signllava("generate", "-c", run, *options, "--context-source", "none", "--out", tmp_path / "p").code == 0
    found = scored(signllava, tmp_path, tmp_path / "p")
    assert set(found["scores"]) == {"items", "accuracy", "precision", "recall", "f1", "malformed"}


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
    ended = signllava("eval", copy, *options)
    assert ended.code == 0, ended.err
    results = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [result["context_source"] for result in results] == ["none", "gold", "predicted"]
    assert "bleu4" in results[2]["against_first"]
    again = signllava("eval", copy, *options)
    assert again.out.count("0 clips in 0.0 s") == 3


def test_predictions_of_other_settings_are_named_and_kept(signllava: Command, run: Path, tmp_path: Path) -> None:
    """After `generate --beams 2`, eval decodes as the recipe says, into a folder of its own; and does so once."""
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    settings = ["--set", "generate.max_new_tokens=5", "--set", "generate.num_beams=1"]
    generate = ["generate", "-c", copy, "--split", "dev", *settings, "--context-source", "none"]
    assert signllava(*generate, "--beams", 2).code == 0
    (made,) = (copy / "predictions").iterdir()
    before = (made / "predictions.jsonl").read_bytes()
    options = [copy, "--split", "dev", *settings, "--samples", 0, "--context-sources", "none"]
    for decoded in (len(before.splitlines()), 0):
        ended = signllava("eval", *options, "--out", tmp_path / "s.json")
        assert ended.code == 0, ended.err
        said = " ".join(ended.out.split())
        assert f"{made} was made with generate.num_beams 2, not 1; using {made}.2" in said
        assert f" {decoded} clips in " in said
    assert (made / "predictions.jsonl").read_bytes() == before
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert (result["name"], result["file"]) == ("none", f"{made}.2/predictions.jsonl")


def test_a_research_file_counts_what_its_system_dropped(signllava: Command, tmp_path: Path) -> None:
    """A clip without a hypothesis is missing; one that only clip_order names has no reference to score against."""
    file = research(tmp_path / "research.json")
    content = json.loads(file.read_text())
    del content["v1"]["b"]["hypothesis"], content["v2"]["c"]
    file.write_text(json.dumps(content))
    result = scored(signllava, tmp_path, file)
    assert (result["clips"], result["missing"], result["unscored"]) == (2, ["v1/b"], ["v2/c"])
    assert "v2/c" in result["said"]
    whole = scored(signllava, tmp_path, file, "--references", jsonl(tmp_path / "all.jsonl", list(TEXTS)))
    assert (whole["clips"], whole["missing"], whole["context_source"]) == (3, ["v1/b", "v2/c"], "unknown")


def test_gold_text_is_never_scored_as_if_a_system_had_said_it(signllava: Command, tmp_path: Path) -> None:
    file = research(tmp_path / "annotation.json")
    content = json.loads(file.read_text())
    for clips in content.values():
        for clip in clips.values():
            if isinstance(clip, dict):
                del clip["hypothesis"]
    file.write_text(json.dumps(content))
    ended = signllava("eval", file)
    assert (ended.code, "holds no hypotheses" in ended.err) == (2, True)


def test_another_system_does_not_inherit_the_context_of_the_references(signllava: Command, tmp_path: Path) -> None:
    """Nor two texts of one clip, whichever way it is named."""
    file = jsonl(tmp_path / "all.jsonl", list(TEXTS))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    seen = [{**row, "context": [row["reference"]], "context_source": "gold"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in seen))
    result = scored(signllava, tmp_path, table(tmp_path / "h.csv", {"v1/a": "x", "b": "y"}), "--references", file)
    assert (result["context_source"], result["analysis"]["leaked"]) == ("unknown", [])
    ended = signllava("eval", table(tmp_path / "twice.csv", {"v1/a": "x", "a": "y"}), "--references", file)
    assert (ended.code, "v1/a stands twice" in ended.err) == (2, True)


def test_the_intersection_is_of_clips_with_a_hypothesis_also_where_references_say_which_there_are(
    signllava: Command, tmp_path: Path
) -> None:
    file = jsonl(tmp_path / "all.jsonl", list(TEXTS))
    part = table(tmp_path / "part.csv", {"v1/a": "x", "v2/c": "y"})
    options = ["--references", file, "--samples", 0, "--out", tmp_path / "s"]
    for more, clips in (([], 3), (["--intersection"], 2)):
        ended = signllava("eval", f"theirs={part}", f"ours={file}", *options, *more)
        assert ended.code == 0, ended.err
        content = json.loads((tmp_path / "s" / "scores.json").read_text())
        assert [result["clips"] for result in content["results"]] == [clips, clips]
        assert content["sources"] == {"references": str(file), "missing": "empty", "intersection": bool(more)}


def test_several_plain_texts_share_their_references(signllava: Command, tmp_path: Path) -> None:
    for name, text in (("ref", "a b\nc\n"), ("one", "a b\nc\n"), ("two", "a\nc\n")):
        (tmp_path / name).write_text(text)
    given = ["--hyp", tmp_path / "one", "--hyp", f"mine={tmp_path / 'two'}", "--ref", tmp_path / "ref"]
    ended = signllava("eval", *given, "--samples", 50, "--trials", 50, "--out", tmp_path / "s.json")
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [(each["name"], each["scores"]["exact_match"]) for each in found] == [("one", 100), ("mine", 50)]


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
        ended = signllava("eval", *options)
        assert (ended.code, "different" in ended.err) == (2, True), ended.err
    assert "known are translation" in signllava("eval", file("odd.jsonl", None, "banana")).err


def test_no_input_and_no_strangers_file_is_written_over(signllava: Command, tmp_path: Path) -> None:
    for name in ("h.tex", "r.tex", "paper.tex", "site.html"):
        (tmp_path / name).write_text("a b\n")
    (tmp_path / "lm.json").write_text('{"results": {}}')
    pair = ["--hyp", tmp_path / "h.tex", "--ref", tmp_path / "r.tex", "--samples", 0]
    for more in (["--latex", "r.tex"], ["--latex", "paper.tex"], ["--report", "site.html"], ["--out", "lm.json"]):
        ended = signllava("eval", *pair, more[0], tmp_path / more[1])
        assert (ended.code, "choose another name" in " ".join(ended.err.split())) == (2, True), ended.err
    assert (tmp_path / "r.tex").read_text() == "a b\n"
    for _ in range(2):
        outputs = ["--latex", tmp_path / "t.tex", "--report", tmp_path / "t.html", "--out", tmp_path / "s.json"]
        assert signllava("eval", *pair, *outputs).code == 0


def context_experiment(folder: Path) -> Path:
    """Predictions under three context sources side by side, as `generate` writes them; `gold` sorts first."""
    for source in ("gold", "none", "predicted"):
        file = folder / f"step-000004.test.{source}" / "predictions.jsonl"
        file.parent.mkdir(parents=True)
        rows = [prediction(id_, context_source=source) for id_ in TEXTS]
        file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return folder


def test_a_folder_of_predictions_is_scored_again_although_the_output_lies_there(
    signllava: Command, tmp_path: Path
) -> None:
    """`signllava eval predictions/* ...` twice gives the same, against the system without context."""
    folder = context_experiment(tmp_path / "predictions")
    options = ["--samples", 20, "--trials", 20, "--report", folder / "report.html", "--latex", folder / "table.tex"]
    found = []
    for _ in range(2):
        ended = signllava("eval", *sorted(folder.iterdir()), *options, "--charts", folder / "charts")
        assert ended.code == 0, ended.err
        found.append(json.loads((folder / "scores.json").read_text()))
        found[-1].pop("date")
    assert found[0] == found[1]
    names = [f"step-000004.test.{source}" for source in ("none", "gold", "predicted")]
    assert [result["name"] for result in found[0]["results"]] == names
    assert [bool(result["against_first"]) for result in found[0]["results"]] == [False, True, True]
    for output in ("scores.json", "report.html", "table.tex", "charts"):
        assert f"{folder / output}: written by `signllava eval`, skipped" in ended.out
    ended = signllava("eval", folder / "scores.json", folder / "charts")
    assert (ended.code, "no predictions are given" in ended.err) == (2, True)
    ended = signllava("eval", f"ours={folder / 'scores.json'}", folder / "step-000004.test.none")
    assert (ended.code, "written by `signllava eval`; name predictions" in ended.err) == (2, True)


def test_the_baseline_is_named_or_the_system_without_context_or_the_first(signllava: Command, tmp_path: Path) -> None:
    folders = sorted(context_experiment(tmp_path / "predictions").iterdir())
    unknown = table(tmp_path / "t5.csv", {id_: hypothesis for id_, (_, hypothesis) in TEXTS.items()})
    options = ["--samples", 0, "--out", tmp_path / "s.json"]
    references = ["--references", folders[0]]
    for given, first in (
        ([*folders, "--baseline", "step-000004.test.predicted"], "step-000004.test.predicted"),
        ([f"a={folders[0]}", f"none={folders[2]}", f"b={folders[1]}"], "none"),
        ([f"t5={unknown}", *folders, *references], "t5"),
        ([folders[2], f"t5={unknown}", *references, "--baseline", "t5"], "t5"),
    ):
        ended = signllava("eval", *given, *options)
        assert ended.code == 0, ended.err
        content = json.loads((tmp_path / "s.json").read_text())
        assert (content["results"][0]["name"], content["baseline"]) == (first, first)
    ended = signllava("eval", *folders, "--baseline", "gold")
    assert (ended.code, "no system has this name; there are step-000004.test.gold" in ended.err) == (2, True)
