"""Gold context out of several splits of one benchmark: PHOENIX-2014T cuts its broadcasts into train, dev and test."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.files import read_json
from signllava_cli.generation.predictions_folder import read_predictions

Command = Callable[..., Ended]


def cut(corpus: Path, root: Path, with_times: bool = False) -> None:
    """The toy corpus in `root`, of whose dev recordings every third clip is in split dev, the others in train and
    test; recording 0 is wholly in dev."""
    shutil.copytree(corpus, root)
    whole = json.loads((root / "annotation.dev.json").read_text())
    parts: dict[str, dict[str, Any]] = {"train": {}, "dev": {}, "test": {}}
    for number, (name, recording) in enumerate(whole.items()):
        for index, clip in enumerate(recording["clip_order"]):
            part = parts[("dev", "train", "test")[index % 3 if number else 0]].setdefault(name, {"clip_order": []})
            times = {"start": 2.0 * index, "end": 2.0 * index + 1.5} if with_times else {}
            part[clip] = recording[clip] | times
            part["clip_order"].append(clip)
    for split, content in parts.items():
        (root / f"annotation.{split}.json").write_text(json.dumps(content))


@pytest.fixture
def generate(signllava: Command, run: Path, tmp_path: Path) -> Callable[..., Ended]:
    def command(*options: object) -> Ended:
        quick = ["--split", "dev", "--max-new-tokens", 2, "--beams", 1, "--context", 2, "--prelude", 1]
        data = ["--set", f"data.root={tmp_path / 'data'}"]
        return signllava("generate", "-c", run, *quick, *data, "--out", tmp_path / "out", *options)

    return command


@pytest.mark.parametrize("with_times", [False, True])
def test_gold_context_is_that_of_the_uncut_recording(
    generate: Callable[..., Ended], signllava: Command, corpus: Path, tmp_path: Path, with_times: bool
) -> None:
    cut(corpus, tmp_path / "data", with_times)
    sources = ["--context-source", "gold", "--context-source", "predicted"]
    ended = generate(*sources, "--context-from", "train,dev,test")
    assert ended.code == 0, ended.err
    uncut = {recording.name: recording for recording in read_annotations(corpus, "dev")}
    expected = {
        clip.id: gold_context(uncut[recording.name], index, 2, 1)
        for recording in uncut.values()
        for index, clip in enumerate(recording.clips)
    }
    (folder,) = (tmp_path / "out").glob("gold-*")
    rows = read_predictions(folder / "predictions.jsonl")
    assert folder.name == "gold-n2-m1-from-dev-test-train"
    assert len(rows) > 20
    assert {row.id: row.context for row in rows} == {row.id: expected[row.id] for row in rows}
    assert {row.context_source for row in rows} == {"gold:dev,test,train"}
    assert read_json(folder / "predictions.meta.json")["context_from"] == ["dev", "test", "train"]
    assert "have earlier sentences in split test, train" in ended.out + ended.err
    (predicted,) = (tmp_path / "out").glob("predicted-*")
    assert read_json(predicted / "predictions.meta.json")["context_from"] == ["dev"]
    assert "predicted context stays within split dev" in ended.out + ended.err
    scored = signllava("eval", folder, "--samples", 0)
    assert scored.code == 0, scored.err
    assert "gold:dev,test,train" in scored.out
    (scores,) = folder.glob("scores.json")
    assert {system["context_source"] for system in read_json(scores)["results"]} == {"gold:dev,test,train"}


def test_what_cannot_be_joined_is_refused(generate: Callable[..., Ended], corpus: Path, tmp_path: Path) -> None:
    def refused(*options: object) -> str:
        ended = generate("--context-source", "gold", *options)
        assert ended.code == 2, ended.out
        assert ended.err.count("\n") == 1
        return ended.err

    cut(corpus, tmp_path / "data")
    assert "--context-from has no effect" in refused(
        "--context-source", "none", "--context-from", "train", "--context", 0, "--prelude", 0
    )
    assert "annotation.gone.json" in refused("--context-from", "gone")
    file = tmp_path / "data" / "annotation.train.json"
    train = json.loads(file.read_text())
    name = next(iter(train))
    train[name]["clip_order"].reverse()
    file.write_text(json.dumps(train))
    assert f"recording {name} of split train" in refused("--context-from", "train,test")
    dev = json.loads((tmp_path / "data" / "annotation.dev.json").read_text())
    file.write_text(json.dumps(dev))
    assert "is in split dev and in split train" in refused("--context-from", "train")
    file.write_text(json.dumps({f"other{key}": value for key, value in dev.items()}))
    assert "no recording of split dev" in refused("--context-from", "train")
