"""Each input that `eval` cannot score ends it in one line that names the file, or what to do."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

from signllava_cli.generation.prediction import Prediction

CLIP = {"reference": "One.", "hypothesis": "Two."}


def write_inputs(folder: Path) -> None:
    """One file, or folder, for each case below, and `good.jsonl`."""

    def write_rows(file: str, recording: str = "v", task: str = "translation", **values: Any) -> None:
        row = Prediction(recording, "a", 0, task, "One.", "Two.", context_source="none", **values)
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_text(json.dumps(vars(row)) + "\n")

    write_rows("good.jsonl")
    write_rows("other.jsonl", recording="w")
    write_rows("free.jsonl", task="question", question="Who?")
    write_rows("unknown.jsonl", task="poem")
    write_rows("answers.jsonl", recording="u", task="is_reversed", question="Reversed?")
    write_rows("stale/predictions.jsonl")
    (folder / "stale/predictions.meta.json").write_text("{}")
    write_rows("several/x/predictions.jsonl")
    write_rows("several/y/predictions.jsonl")
    write_rows("run/predictions/x/predictions.jsonl")
    two_tasks = [(folder / file).read_text() for file in ("good.jsonl", "answers.jsonl")]
    (folder / "tasks.jsonl").write_text("".join(two_tasks))
    (folder / "empty.jsonl").write_text("")
    (folder / "h.csv").write_text("uid,text\nv/a,Two.\n")
    (folder / "columns.csv").write_text("uid,text,text\nv/a,Two.,Two.\n")
    (folder / "no_text.csv").write_text("uid,text\nv/a\n")
    for name, clips in {
        "no_order": {"a": CLIP},
        "twice": {"clip_order": ["a", "a"], "a": CLIP},
        "no_reference": {"clip_order": ["a"], "a": {"hypothesis": "Two."}},
        "number": {"clip_order": ["a"], "a": {**CLIP, "hypothesis": 2}},
        "surrogate": {"clip_order": ["a"], "a": {**CLIP, "hypothesis": "\ud83d"}},
        "gold": {"clip_order": ["a"], "a": {"translation": "One."}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps({"v": clips}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["h.csv"], "h.csv has no references; name a file of references with --references."),
        (["columns.csv", "--references", "good.jsonl"], "columns.csv: two columns have one name"),
        (["no_text.csv", "--references", "good.jsonl"], "no_text.csv, line 2: no text."),
        (["empty.jsonl"], "empty.jsonl has no predictions."),
        (["empty.jsonl", "--references", "good.jsonl"], "empty.jsonl has no texts."),
        (["run"], "run is a run; name run/predictions/*, or add `--context-sources none,gold,predicted`."),
        (["several"], "several holds several predictions; name several/*, or one of several/x, several/y."),
        (["stale"], "predictions.meta.json does not have clips, clips_hash and split; run `signllava generate`"),
        (["free.jsonl"], "Answers to a free question have no references, so they cannot be scored."),
        (["unknown.jsonl"], "task poem: unknown task; expected one of translation, "),
        (["tasks.jsonl"], "tasks.jsonl has clips of several tasks (is_reversed, translation); score each task"),
        (["good.jsonl", "answers.jsonl"], "have several tasks (is_reversed, translation); score each task"),
        (["good.jsonl", "other.jsonl"], "have no clip in common"),
        (["good.jsonl", "other.jsonl", "--intersection"], "The files have no common clips."),
        (["answers.jsonl", "--stop-list", "words.txt"], "--stop-list: only for translations; these are answers of"),
        (["no_order.json"], "no_order.json, recording v: no `clip_order` with the names of its clips"),
        (["twice.json"], "twice.json, recording v: clip_order lists clips twice (a); remove the repetitions."),
        (["no_reference.json"], "no_reference.json, clip v/a: no reference or translation."),
        (["number.json"], "number.json, clip v/a: the hypothesis is not a text."),
        (["surrogate.json"], "surrogate.json, clip v/a: half a character (a lone surrogate)."),
        (["gold.json"], "gold.json has no hypotheses, only references; name it with --references."),
        (["--context-sources", "none,gold"], "--context-sources needs exactly one run or checkpoint."),
        (["good.jsonl", "--samples", "5"], "an interval needs at least 20; 0 turns intervals and comparisons off."),
        (["good.jsonl", "--charts", "h.csv"], "--charts h.csv is a file; name a folder."),
    ],
)
def test_an_input_that_cannot_be_scored_is_named_in_one_line(
    signllava: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    ended = signllava("eval", *arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended
    assert message in ended.err, ended.err
