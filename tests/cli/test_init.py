"""`signllava init` writes a recipe that fits the data, the LLM and the GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

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
