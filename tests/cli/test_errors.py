"""An error of the user prints one line that says what happened, where, and what to do, and exits with 2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

from signllava_cli.errors import is_out_of_memory

Command = Callable[..., Ended]


def assert_one_line(ended: Ended, *phrases: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.startswith("error: ")
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "Traceback" not in ended.err
    for phrase in phrases:
        assert phrase in ended.err


def pretrain(signllava: Command, settings: list[str], *more: str) -> Ended:
    return signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, *more]))


def test_missing_data_folder(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "data.root=/nowhere"), "No data folder at /nowhere", "data.root")


def test_missing_split(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "data.dev=valid"), "No annotation.valid.json")


def test_an_enabled_stream_without_files(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "streams.dino.width=4"), "stream dino", "streams.dino.folder")


def test_unknown_key(signllava: Command, settings: list[str]) -> None:
    ended = pretrain(signllava, settings, "train.learing_rate=1")
    assert_one_line(ended, "train.learing_rate: unknown key; did you mean `learning_rate`?")


def test_wrong_width(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "streams.mae.width=65"), "shape", "streams.mae.width=65")


def test_missing_shard(signllava: Command, settings: list[str], corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "my data"
    shutil.copytree(corpus, data)
    (data / "mae/mae.train.1.h5").unlink()
    ended = pretrain(signllava, settings, f"data.root={data}")
    assert_one_line(ended, "shard 1 of split train is missing", "mae.train.1.h5", "train01")
    assert f"`signllava prepare check '{data}'`" in ended.err


def test_missing_recipe_and_recipe_that_is_not_yaml(signllava: Command, tmp_path: Path) -> None:
    assert_one_line(signllava("pretrain", "-r", "toy/tiny_pretain"), "Did you mean `toy/tiny_pretrain`?")
    (tmp_path / "r.yaml").write_text("train: [")
    assert_one_line(signllava("pretrain", "-r", tmp_path / "r.yaml"), "r.yaml is not YAML")
    assert_one_line(signllava("pretrain", "-r", tmp_path), "No recipe at")


def test_stage_and_recipe_that_contradict(signllava: Command, settings: list[str]) -> None:
    assert_one_line(signllava("finetune", "-r", "toy/tiny_pretrain", *sets(settings)), "lora.enabled")


def test_missing_llm(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "llm.path=/nowhere"), "no folder at /nowhere", "prepare llm")
    ended = pretrain(signllava, settings, "llm.path=nobody/nothing")
    assert_one_line(ended, "nobody/nothing cannot be loaded")


def test_batch_size_that_cannot_be_divided(signllava: Command, settings: list[str]) -> None:
    assert_one_line(pretrain(signllava, settings, "train.batch_size=6"), "train.batch_size: 6 is not a multiple")


def test_unknown_launch_profile(signllava: Command, settings: list[str]) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", "--launch", "zero9", *sets(settings))
    assert_one_line(ended, "No launch profile zero9", "multi_gpu")


def test_checkpoint_of_another_llm(
    signllava: Command, settings: list[str], tiny_llm: Path, tmp_path: Path, corpus: Path
) -> None:
    """An LLM with another shape, and one with the same shape and other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    assert pretrain(signllava, settings, "train.max_steps=1").code == 0
    run = tmp_path / "run"
    other = tmp_path / "other"
    shutil.copytree(tiny_llm, other)
    torch.manual_seed(1)
    config = AutoModelForCausalLM.from_pretrained(tiny_llm).config
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    generate = ["generate", "-c", run, "--split", "dev"]
    assert_one_line(
        signllava(*generate, *sets([f"llm.path={other}"])), "has the same sizes, but other weights", "llm.path"
    )
    changed = AutoModelForCausalLM.from_pretrained(tiny_llm)
    with torch.no_grad():
        changed.model.layers[-1].mlp.up_proj.weight += 0.01
    changed.save_pretrained(other)
    assert_one_line(
        signllava(*generate, *sets([f"llm.path={other}"])), "has the same sizes, but other weights", "llm.path"
    )
    config.hidden_size = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    assert_one_line(signllava(*generate, *sets([f"llm.path={other}"])), "hidden_size 128", "hidden_size 64")
    finetune = ["finetune", "-r", "toy/tiny_finetune", "--projector", run]
    ended = signllava(*finetune, *sets([*settings, f"llm.path={other}", f"run.output_dir={tmp_path / 'f'}"]))
    assert_one_line(ended, "hidden_size 128", "hidden_size 64")


def test_missing_checkpoint(signllava: Command, tmp_path: Path) -> None:
    assert_one_line(signllava("generate", "-c", tmp_path), "No checkpoint at")
    assert_one_line(signllava("checkpoint", "inspect", tmp_path / "x"), "No checkpoint at")


def test_projector_of_another_type_is_refused(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    """Sign_LLaVA accepted a projector of another type, and left its weights random."""
    assert pretrain(signllava, settings, "train.max_steps=1").code == 0
    overrides = [*settings, f"run.output_dir={tmp_path / 'f'}", f"init.projector={tmp_path / 'run'}"]
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets([*overrides, "streams.mae.projector=mlp3x_gelu"]))
    assert_one_line(ended, "projector.safetensors lacks", "mae.layers.4")
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets([*overrides, "streams.sign2vec=null"]))
    assert_one_line(ended, "that this recipe's model lacks", "sign2vec")


@pytest.mark.parametrize(
    "words", [["generate"], ["nonsense"], ["pretrain", "--recipe", "pretrain", "--sett", "x=1"], ["serve"]]
)
def test_wrong_usage_prints_the_usage(signllava: Command, words: list[str]) -> None:
    ended = signllava(*words)
    assert ended.code == 2
    assert "Usage" in ended.err


@pytest.mark.parametrize("name", ["toy", "llm"])
def test_prepare_does_not_overwrite_a_folder_with_other_files(signllava: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    words = ["toy"] if name == "toy" else ["llm", "tiny", "--corpus", str(tmp_path / "none")]
    ended = signllava("prepare", *words, "--out", tmp_path)
    assert_one_line(ended, "not empty")
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_dev_task_without_keywords_is_refused_before_the_first_step(
    signllava: Command, settings: list[str], corpus: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    file = copy / "annotation.dev.json"
    file.write_text(file.read_text().replace('"keywords": [', '"words": ['))
    ended = pretrain(signllava, settings, f"data.root={copy}", "tasks.dev.one_word_present=1")
    assert_one_line(ended, "split dev has none", "signllava prepare keywords")
    assert not list((tmp_path / "run").glob("step-*"))


def test_an_out_of_memory_error_is_not_a_bug() -> None:
    import torch

    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
