"""A checkpoint holds the trained tensors, all of them and no others, in formats that other tools read."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import chat_template_utils

from signllava_cli.data.chat_turns import ChatTurns
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint, read_config
from signllava_cli.model.loading import load_checkpoint_bundle, load_model_bundle
from signllava_cli.recipe import read_recipe

Command = Callable[..., Ended]


@pytest.fixture
def pretrained(signllava: Command, settings: list[str], tmp_path: Path) -> Path:
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings)).code == 0
    return tmp_path / "run"


@pytest.fixture
def finetuned(signllava: Command, settings: list[str], tmp_path: Path, pretrained: Path) -> Path:
    run = tmp_path / "finetuned"
    arguments = ["--projector", pretrained, *sets([*settings, f"run.output_dir={run}"])]
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *arguments)
    assert ended.code == 0, ended.err
    return run


def test_a_pretrain_checkpoint_has_four_bytes_per_trained_parameter(pretrained: Path, settings: list[str]) -> None:
    file = pretrained / "best" / "projector.safetensors"
    model = load_model_bundle(read_recipe("toy/tiny_pretrain", settings), torch.device("cpu")).model
    trained = sum(parameter.numel() for parameter in model.trainable_parameters().values())
    assert abs(file.stat().st_size / (4 * trained) - 1) < 0.01
    assert {path.name for path in file.parent.iterdir()} == {
        "projector.safetensors",
        "config.json",
        "recipe.yaml",
        "progress.json",
        "resume",
    }


def test_no_file_of_a_run_holds_a_frozen_tensor(finetuned: Path) -> None:
    names = set()
    for file in finetuned.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names |= {(file.name, name) for name in tensors.keys()}  # noqa: SIM118
    streams = ("sign2vec.", "mae.")
    for file_name, name in names:
        if file_name == "projector.safetensors":
            assert name.startswith(streams)
        elif file_name == "adapter_model.safetensors":
            assert ".lora_A." in name or ".lora_B." in name
        else:
            assert name.startswith("projectors.") or ".lora_" in name
    assert not [path for path in finetuned.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


def test_only_the_newest_checkpoints_keep_optimizer_state_and_best_and_last_are_kept(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ["train.max_steps=12", "train.save_steps=1", "train.eval_steps=3", "train.save_total_limit=4"]
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more])).code == 0
    steps = sorted(path.name for path in run.glob("step-*"))
    best = (run / "best").resolve().name
    assert set(steps) == {best, *(f"step-{step:06d}" for step in (9, 10, 11, 12))}
    assert [step for step in steps if (run / step / "resume").exists()] == ["step-000011", "step-000012"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["dev_loss"] for line in lines if "dev_loss" in line}
    assert best == f"step-{min(losses, key=losses.__getitem__):06d}"


def test_finetune_starts_from_the_pretrained_projector(
    signllava: Command, settings: list[str], tmp_path: Path, pretrained: Path
) -> None:
    """A run, a checkpoint and a file give the same weights."""
    expected = load_file(pretrained / "best" / "projector.safetensors")
    best = find_checkpoint(pretrained)
    for source in (pretrained, best, best / "projector.safetensors"):
        recipe = read_recipe("toy/tiny_finetune", [*settings, f"init.projector={source}"])
        model = load_model_bundle(recipe, torch.device("cpu")).model
        for name, tensor in model.projectors.state_dict().items():
            assert torch.equal(tensor, expected[name])


def test_the_date_in_the_prompt_stays_that_of_the_pretrained_projector(
    signllava: Command, settings: list[str], tmp_path: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And other turns are a warning."""

    def run_on(day: int, command: str, *more: str) -> tuple[ChatTurns, str]:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Clock":
                return cls(2026, 11, day)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        run = tmp_path / command
        common = [*settings, f"llm.path={llm}", f"run.output_dir={run}", "train.max_steps=1", "train.eval_steps=1"]
        ended = signllava(command, "-r", f"toy/tiny_{command}", *sets([*common, *more]))
        assert ended.code == 0, ended.err
        return read_config(find_checkpoint(run)).turns, ended.out

    llm = tmp_path / "llm"
    shutil.copytree(tiny_llm, llm)
    template = llm / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %B %Y') }} " + template.read_text())

    pretrained, _ = run_on(1, "pretrain")
    finetuned, out = run_on(2, "finetune", f"init.projector={tmp_path / 'pretrain'}")
    assert pretrained.before.startswith("26 July 2024 ")
    assert finetuned == pretrained
    assert "trained with other turns" not in out

    shutil.rmtree(tmp_path / "finetune")
    more = [f"init.projector={tmp_path / 'pretrain'}", "tasks.chat_template_kwargs.date_string=27 Jul 2024"]
    finetuned, out = run_on(2, "finetune", *more)
    assert finetuned.before.startswith("27 July 2024 ")
    assert out.count("trained with other turns: tasks.system, tasks.chat_template_kwargs or") == 1


def test_a_checkpoint_that_stores_no_text_before_the_end_of_turn_is_read(pretrained: Path) -> None:
    file = find_checkpoint(pretrained) / "config.json"
    config = json.loads(file.read_text())
    assert config["turns"].pop("before_end") == ""
    turns = read_config(file.parent).turns
    file.write_text(json.dumps(config))
    assert read_config(file.parent).turns == turns


def test_peft_reads_the_adapter(finetuned: Path, tiny_llm: Path) -> None:
    adapter = find_checkpoint(finetuned) / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_llm)
    llm = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llm), adapter)
    bundle = load_checkpoint_bundle(
        find_checkpoint(finetuned), checkpoint_recipe(find_checkpoint(finetuned), []), torch.device("cpu")
    )
    expected = {name: tensor for name, tensor in llm.named_parameters() if "lora_" in name}
    actual = {
        name.removeprefix("llm."): tensor for name, tensor in bundle.model.named_parameters() if "lora_" in name
    }
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in actual)
    assert any(actual[name].abs().sum() > 0 for name in actual if "lora_B" in name)


def test_missing_and_unexpected_tensors_are_errors(signllava: Command, pretrained: Path, settings: list[str]) -> None:
    from safetensors.torch import save_file

    file = find_checkpoint(pretrained) / "projector.safetensors"
    weights = load_file(file)
    save_file({f"module.{name}": tensor for name, tensor in weights.items()}, file)
    ended = signllava("generate", "-c", pretrained, "--split", "dev")
    assert (ended.code, "lacks" in ended.err) == (2, True)
    save_file({**weights, "extra": torch.zeros(1)}, file)
    ended = signllava("generate", "-c", pretrained, "--split", "dev")
    assert (ended.code, "has 1 tensor that this recipe's model lacks" in ended.err) == (2, True)


def test_inspect_lists_every_tensor(signllava: Command, finetuned: Path) -> None:
    ended = signllava("checkpoint", "inspect", "--tensors", finetuned)
    assert ended.code == 0
    assert "finetune, step" in ended.out
    assert "sign2vec.boundary" in ended.out
    assert "lora_A" in ended.out
