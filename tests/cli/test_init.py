"""`signllava init` writes a recipe that fits the data, the LLM and the GPU."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended

from signllava_cli.files import write_json
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.recipe import read_recipe

Command = Callable[..., Ended]


def test_a_new_recipe_has_the_streams_and_splits_of_the_data_and_trains(
    signllava: Command, corpus: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "mine.yaml"
    ended = signllava("init", file, "--data", corpus, "--llm", tiny_llm, "--gpu", "cpu")
    assert ended.code == 0, ended.err
    recipe = read_recipe(file)
    assert {name: stream.width for name, stream in recipe.streams.items()} == {"mae": 64, "pose": 26, "sign2vec": 48}
    assert (recipe.data.train, recipe.data.dev, recipe.generate.split) == ("train", "dev", "test")
    assert (recipe.llm.dtype, recipe.train.torch_compile) == ("float32", False)
    assert "streams mae (64), pose (26), sign2vec (48); splits train" in " ".join(ended.out.split())
    faster = [
        "train.max_steps=1",
        f"run.output_dir={tmp_path / 'run'}",
        "train.preflight=false",
        "train.eval_steps=9",
    ]
    options = [word for setting in faster for word in ("--set", setting)]
    assert signllava("pretrain", "--recipe", file, *options).code == 0
    assert signllava("init", file, "--data", corpus, "--llm", tiny_llm).code == 2  # it exists


def test_commands_can_be_pasted_and_counts_are_words(
    signllava: Command, corpus: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    data, file, run = tmp_path / "my data", tmp_path / "my recipe.yaml", "runs/my pretrain"
    shutil.copytree(corpus, data)
    annotations = json.loads((data / "annotation.dev.json").read_text())
    recording, clips = next(iter(annotations.items()))
    first = clips["clip_order"][0]
    one = {recording: {"clip_order": [first], first: clips[first]}}
    (data / "annotation.dev.json").write_text(json.dumps(one))
    words = ["--data", data, "--llm", tiny_llm, "--gpu", "cpu", "--stage", "finetune", "--projector", run]
    ended = signllava("init", file, *words)
    assert ended.code == 0, ended.err
    assert "dev 1 clip," in " ".join(ended.out.split())
    commands = [shlex.split(line) for line in ended.out.splitlines() if line.strip().startswith("signllava ")]
    assert commands == [
        ["signllava", "prepare", "check", str(data), "--recipe", str(file)],
        ["signllava", "finetune", "--recipe", str(file), "--dry-run"],
        ["signllava", "finetune", "--recipe", str(file)],
    ]
    (comment,) = [line for line in file.read_text().splitlines() if "signllava finetune" in line]
    assert shlex.split(comment.removeprefix("#")) == [*commands[2], "--projector", run]


def test_a_line_break_in_a_path_does_not_end_a_comment(signllava: Command, tmp_path: Path) -> None:
    data, file = tmp_path / "da\nta: 1", tmp_path / "mine\n: 2.yaml"
    for split in ("train", "dev"):
        write_json(data / f"annotation.{split}.json", {"r": {"clip_order": ["c"], "c": {"translation": "Hello."}}})
        write_stream(data, split, "mae", {"r": {"c": np.zeros((20, 8), np.float16)}}, 1)
    ended = signllava("init", file, "--data", data, "--gpu", "cpu")
    assert ended.code == 0, ended.err
    assert read_recipe(file).data.root == str(data)
    copy = tmp_path / "copy.yaml"
    ended = signllava("recipes", "copy", f"{file}+pose", copy)
    assert ended.code == 0, ended.err
    assert read_recipe(copy).data.root == str(data)


@pytest.mark.parametrize(
    ("widths", "words", "base"),
    [
        ({"pose": 208}, [], "pretrain+pose --set data.root={data}"),
        ({"pose": 208}, ["--llm", "Qwen/Qwen3-8B"], "pretrain+pose+qwen3-8b --set data.root={data}"),
        (
            {"sign2vec": 768, "mae": 768, "dino": 1152, "pose": 208},
            ["--llm", "my/llm"],
            "pretrain --set data.root={data} --set llm.path=my/llm",
        ),
        ({"pose": 189}, [], None),
        ({"pose": 208, "mae": 768}, [], None),
    ],
)
def test_a_shipped_recipe_with_the_streams_of_the_data_is_named(
    signllava: Command, tmp_path: Path, widths: dict[str, int], words: list[str], base: str | None
) -> None:
    data = tmp_path / "data"
    for split in ("train", "dev"):
        write_json(data / f"annotation.{split}.json", {"r": {"clip_order": ["c"], "c": {"translation": "Hello."}}})
        for stream, width in widths.items():
            write_stream(data, split, stream, {"r": {"c": np.zeros((20, width), np.float16)}}, 1)
    ended = signllava("init", tmp_path / "mine.yaml", "--data", data, "--gpu", "cpu", *words)
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "shipped recipe" in line]
    if base is None:
        assert lines == []
    else:
        command = f"signllava pretrain --recipe {base.format(data=data)}"
        assert lines == [f"a shipped recipe has these streams too: {command}"]


@pytest.mark.drill
def test_a_new_finetune_recipe_fits_the_memory_of_the_gpu(
    signllava: Command, corpus: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    words = ["--data", corpus, "--llm", tiny_llm, "--stage", "finetune", "--streams", "sign2vec"]
    ended = signllava("init", file, *words, "--gpu", "24GiB")
    assert ended.code == 0, ended.err
    recipe = read_recipe(file)
    assert list(recipe.streams) == ["sign2vec"]
    assert (recipe.llm.bits, recipe.lora.enabled, recipe.init.projector) == (4, True, "runs/pretrain")
    assert recipe.train.max_tokens_per_batch == 4096
    assert "fit into 24GiB" in file.read_text()
    too_small = signllava("init", tmp_path / "other.yaml", *words, "--gpu", "1MiB")
    assert (too_small.code, "does not fit into 1MiB" in too_small.err) == (2, True)
    assert not (tmp_path / "other.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing, and there is no terminal"),
        (["--data", "/nowhere"], "No data folder at /nowhere"),
        (["--data", "{corpus}", "--streams", "video"], "has no stream video of split train; it has mae, pose"),
        (["--data", "{corpus}", "--gpu", "abacus"], "--gpu abacus: unknown"),
    ],
)
def test_what_is_not_there_is_named(
    signllava: Command, corpus: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    ended = signllava("init", tmp_path / "mine.yaml", *(word.format(corpus=corpus) for word in words))
    assert ended.code == 2
    assert message in ended.err


def test_a_terminal_is_asked_five_questions(
    corpus: Path, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signllava: Command
) -> None:
    questions = []

    def answer(question: str, default: str | None = None, **_: object) -> str:
        questions.append(question)
        return {"Dataset folder": str(corpus), "LLM, a folder or a hub id": str(tiny_llm)}.get(question) or str(
            default
        )

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", answer)
    ended = signllava("init", tmp_path / "mine.yaml")
    assert ended.code == 0, ended.err
    assert len(questions) == 5
    assert read_recipe(tmp_path / "mine.yaml").llm.path == str(tiny_llm)
