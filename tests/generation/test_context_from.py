"""Gold context from several splits: PHOENIX-2014T divides the sentences of a broadcast over train, dev and test."""

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


def divide_corpus(corpus: Path, root: Path, with_times: bool = False) -> None:
    """Write the toy corpus to `root` with the clips of its dev recordings divided over dev, train and test.

    Every third clip is in dev; recording 0 is in dev alone.
    """
    shutil.copytree(corpus, root)
    annotation = json.loads((root / "annotation.dev.json").read_text())
    parts: dict[str, dict[str, Any]] = {"train": {}, "dev": {}, "test": {}}
    for number, (name, recording) in enumerate(annotation.items()):
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
def test_gold_context_is_that_of_the_undivided_recording(
    generate: Callable[..., Ended], signllava: Command, corpus: Path, tmp_path: Path, with_times: bool
) -> None:
    divide_corpus(corpus, tmp_path / "data", with_times)
    sources = ["--context-source", "gold", "--context-source", "predicted"]
    ended = generate(*sources, "--context-from", "train,dev,test")
    assert ended.code == 0, ended.err
    undivided = {recording.name: recording for recording in read_annotations(corpus, "dev")}
    expected = {
        clip.id: gold_context(undivided[recording.name], index, 2, 1)
        for recording in undivided.values()
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


def test_splits_that_cannot_be_joined_are_an_error(
    generate: Callable[..., Ended], corpus: Path, tmp_path: Path
) -> None:
    def error_of(*options: object) -> str:
        ended = generate("--context-source", "gold", *options)
        assert ended.code == 2, ended.out
        assert ended.err.count("\n") == 1
        return ended.err

    divide_corpus(corpus, tmp_path / "data")
    assert "--context-from has no effect" in error_of(
        "--context-source", "none", "--context-from", "train", "--context", 0, "--prelude", 0
    )
    assert "annotation.gone.json" in error_of("--context-from", "gone")
    file = tmp_path / "data" / "annotation.train.json"
    train = json.loads(file.read_text())
    name = next(iter(train))
    train[name]["clip_order"].reverse()
    file.write_text(json.dumps(train))
    assert f"recording {name} in split train" in error_of("--context-from", "train,test")
    dev = json.loads((tmp_path / "data" / "annotation.dev.json").read_text())
    file.write_text(json.dumps(dev))
    assert "is in split dev and in split train" in error_of("--context-from", "train")
    file.write_text(json.dumps({f"other{key}": value for key, value in dev.items()}))
    assert "no recording of split dev" in error_of("--context-from", "train")
