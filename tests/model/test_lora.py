"""The adapter covers the layers of every architecture, or the run says what it leaves out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import Ended, sets, subprocess_command
from families import make_llm, write_family
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from signllava_cli.errors import UserError
from signllava_cli.model.layer_weights import adapter_share, layer_weights
from signllava_cli.model.lora import add_lora, save_adapter
from signllava_cli.recipe import Lora, read_recipe

Command = Callable[..., Ended]
LLAMA_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora_share(family: str, **settings: object) -> float:
    config = Lora(enabled=True, r=4, **{"lora_dropout": 0.0, **settings})  # type: ignore[arg-type]
    return adapter_share(layer_weights(add_lora(make_llm(family), config)))


@pytest.mark.parametrize(
    ("family", "least", "with_llama_names"),
    [
        ("llama", 1.0, 1.0),
        ("phi3", 1.0, 0.34),
        ("opt", 1.0, 0.38),
        ("gpt2", 1.0, 0.0),
        ("gpt_neox", 1.0, 0.0),
        ("bloom", 1.0, 0.0),
        ("lfm2", 1.0, 0.105),
        ("mixtral", 1.0, 0.12),
    ],
)
def test_all_linear_covers_the_layers_of_every_architecture(
    family: str, least: float, with_llama_names: float
) -> None:
    assert lora_share(family) >= least
    if with_llama_names:
        assert lora_share(family, target_modules=[name for name in LLAMA_LAYERS if name in names(family)]) == (
            pytest.approx(with_llama_names, abs=0.01)
        )


def names(family: str) -> set[str]:
    return {weight.name for weight in layer_weights(make_llm(family))}


@pytest.mark.parametrize("family", ["gpt_oss", "granitemoe"])
def test_experts_that_peft_does_not_include_are_named_as_parameters(
    family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lora_share(family) < 0.5
    experts = [weight.name for weight in layer_weights(make_llm(family)) if weight.kind == "stack"]
    assert lora_share(family, target_parameters=list(dict.fromkeys(experts))) > 0.98


def test_all_linear_skips_what_kernels_read_without_a_call() -> None:
    """PEFT refuses `out_proj` of Mamba layers; the rest is adapted."""
    assert 0.5 < lora_share("falcon_h1") < 0.95


@pytest.mark.parametrize(("family", "layer"), [("jamba", "dt_proj"), ("falcon_h1", "out_proj")])
def test_a_layer_that_is_read_without_a_call_has_no_adapter(family: str, layer: str) -> None:
    """Its adapter would have no gradient, and a merged LLM would have other logits."""
    with pytest.raises(UserError, match=f"reads the weights of {layer} without calling this layer"):
        add_lora(make_llm(family), Lora(enabled=True, target_modules=["q_proj", layer]))
    llm = add_lora(make_llm(family), Lora(enabled=True, r=4, lora_dropout=0.0))
    llm(input_ids=torch.arange(3, 35)[None]).logits.sum().backward()
    assert all(weight.grad is not None for name, weight in llm.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_embedding_and_lm_head_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is not a linear layer of the decoder"):
        add_lora(make_llm("llama"), Lora(enabled=True, target_modules=["q_proj", name]))


@pytest.mark.parametrize("family", ["llama4", "phimoe"])
def test_a_router_has_no_adapter(family: str) -> None:
    """It is a linear layer by its class, but returns the indices of experts too."""
    llm = add_lora(make_llm(family), Lora(enabled=True, r=4, lora_dropout=0.0))
    llm(input_ids=torch.arange(3, 35)[None])
    assert not any("router" in name for name, weight in llm.named_parameters() if weight.requires_grad)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "k_proj", "v_proj"]])
def test_a_vision_tower_gets_no_adapter(targets: str | list[str]) -> None:
    """No text reaches it, so its adapter would never have a gradient."""
    llm = add_lora(make_llm("gemma3_multimodal"), Lora(enabled=True, r=4, target_modules=targets))  # type: ignore[arg-type]
    adapted = [name for name, weight in llm.named_parameters() if weight.requires_grad]
    assert adapted
    assert all("language_model" in name for name in adapted)
    assert adapter_share(layer_weights(llm)) == (1.0 if targets == "all-linear" else pytest.approx(0.22, abs=0.01))


def test_all_linear_has_the_initial_weights_of_the_list_of_llama() -> None:
    """PEFT draws the weights of the modules in their order in the LLM, not in that of the list."""
    adapters = []
    for targets in ("all-linear", LLAMA_LAYERS):
        llm = make_llm("llama")
        torch.manual_seed(0)
        adapted = add_lora(llm, Lora(enabled=True, r=4, target_modules=targets))
        adapters.append({name: weight for name, weight in adapted.named_parameters() if weight.requires_grad})
    assert list(adapters[0]) == list(adapters[1])
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


@pytest.mark.reliability("Reproducibility", "the files of equal adapters are equal")
@pytest.mark.parametrize("targets", ["all-linear", LLAMA_LAYERS])
def test_the_modules_of_a_saved_adapter_are_sorted(
    tmp_path: Path, targets: list[str] | Literal["all-linear"]
) -> None:
    """PEFT keeps them as a set, whose order differs between processes."""
    llm = add_lora(make_llm("llama"), Lora(enabled=True, r=4, target_modules=targets))
    weights = {name: weight.detach() for name, weight in llm.named_parameters() if weight.requires_grad}
    save_adapter(llm, weights, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert len(config["target_modules"]) >= len(LLAMA_LAYERS)
    assert config["target_modules"] == sorted(config["target_modules"])


@pytest.mark.parametrize(
    ("family", "targets", "absent", "available"),
    [
        ("gpt_neox", ["q_proj", "v_proj"], "q_proj, v_proj", ["query_key_value", "dense", "dense_h_to_4h"]),
        ("bloom", ["q_proj"], "q_proj", ["query_key_value", "dense_4h_to_h"]),
        ("llama", ["q_proj", "qkv_proj"], "no qkv_proj;", ["q_proj", "down_proj"]),
        ("gpt_oss", ["q_proj", "gate_proj"], "no gate_proj;", ["experts.gate_up_proj", "target_parameters"]),
    ],
)
def test_targets_that_the_llm_lacks_are_an_error_with_those_that_it_has(
    family: str, targets: list[str], absent: str, available: list[str]
) -> None:
    with pytest.raises(UserError, match=r"lora\.target_modules") as raised:
        lora_share(family, target_modules=targets)
    for text in (absent, *available):
        assert text in str(raised.value)
    with pytest.raises(UserError, match=r"lora\.target_parameters: .* has no experts\.w9;"):
        lora_share(family, target_parameters=["experts.w9"])


def test_target_modules_is_a_list_or_all_linear() -> None:
    assert read_recipe("toy/tiny_finetune").lora.target_modules == "all-linear"
    assert read_recipe("toy/tiny_finetune", ["lora.target_modules=[q_proj]"]).lora.target_modules == ["q_proj"]
    with pytest.raises(UserError, match=r"lora\.target_modules: expected all-linear or a list of module names, got"):
        read_recipe("toy/tiny_finetune", ["lora.target_modules=q_proj"])
    with pytest.raises(UserError, match=r"set lora\.lora_dropout=0"):
        read_recipe("toy/tiny_finetune", ["lora.target_parameters=[experts.down_proj]"])


@pytest.fixture
def finetune(signllava: Command, corpus: Path, tmp_path: Path) -> Callable[..., Ended]:
    """`finetune(family, *settings)`: two steps on a tiny model of the family, into the run folder `tmp_path/run`."""

    def command(family: str, *settings: str) -> Ended:
        folder = write_family(family, tmp_path / family)
        train = ["max_steps=2", "batch_size=4", "micro_batch_size=4", "preflight=false", "learning_rate=0.05"]
        train += ["warmup_ratio=0", "save_steps=2"]
        common = [f"llm.path={folder}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
        common += ["init.projector=null", "llm.bits=32", "llm.dtype=float32", *(f"train.{key}" for key in train)]
        return signllava("finetune", "-r", "toy/tiny_finetune", *sets([*common, *settings]))

    return command


def test_a_run_prints_the_share_and_the_names_of_what_its_adapter_covers(finetune: Callable[..., Ended]) -> None:
    ended = finetune("phi3")
    assert ended.code == 0, ended.err
    assert "adapter: covers 100 % of the layers' weights: o_proj, qkv_proj, gate_up_proj, down_proj" in ended.out
    assert "warning: the adapter" not in ended.out


def test_a_run_warns_if_its_adapter_covers_less_than_90_percent(finetune: Callable[..., Ended]) -> None:
    ended = finetune("phi3", "lora.target_modules=[o_proj,down_proj]")
    assert ended.code == 0, ended.err
    assert "adapter: covers 33.3 % of the layers' weights: o_proj, down_proj" in ended.out
    (line,) = [line for line in ended.out.splitlines() if line.startswith("warning: the adapter")]
    assert "qkv_proj, gate_up_proj" in line
    assert "all-linear" in line


def test_the_warning_names_the_experts_that_a_list_of_modules_leaves_out(finetune: Callable[..., Ended]) -> None:
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    ended = finetune("mixtral", f"lora.target_modules={attention}")
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("warning: the adapter")]
    assert line.endswith(
        "lora.target_parameters=[experts.gate_up_proj,experts.down_proj] and lora.lora_dropout=0 cover the experts"
    )
    experts = ["experts.gate_up_proj", "experts.down_proj"]
    assert lora_share("mixtral", target_modules=attention, target_parameters=experts) > 0.99


def test_experts_are_adapted_without_dropout_only(finetune: Callable[..., Ended], tmp_path: Path) -> None:
    ended = finetune("mixtral")
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert "set lora.lora_dropout=0" in ended.err
    ended = finetune("mixtral", "lora.lora_dropout=0")
    assert ended.code == 0, ended.err
    assert "adapter: covers 100 % of the layers' weights" in ended.out
    adapter = load_file(tmp_path / "run" / "last" / "adapter" / "adapter_model.safetensors")
    trained = {name for name, weight in adapter.items() if "lora_B" in name and weight.any()}
    assert any("experts" in name for name in trained)
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}


def test_the_adapter_of_experts_loads_in_peft_too(finetune: Callable[..., Ended], tmp_path: Path) -> None:
    """The files are PEFT's own: another program gets the same logits."""
    from peft import PeftModel

    from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
    from signllava_cli.model.loading import load_checkpoint_bundle

    parameters = "lora.target_parameters=[experts.gate_up_proj,experts.down_proj]"
    ended = finetune("gpt_oss", "lora.lora_dropout=0", parameters, "llm.attn_implementation=eager")
    assert ended.code == 0, ended.err
    checkpoint = find_checkpoint(tmp_path / "run")
    ours = load_checkpoint_bundle(checkpoint, checkpoint_recipe(checkpoint, []), torch.device("cpu")).model.llm
    theirs = PeftModel.from_pretrained(make_llm("gpt_oss"), str(checkpoint / "adapter")).eval()
    ids = torch.randint(3, 200, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = theirs(ids).logits, ours(ids).logits
        assert not torch.allclose(actual, make_llm("gpt_oss")(ids).logits, atol=1e-3)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_share_is_that_of_peft_itself() -> None:
    """Held against PEFT's own count of what it wrapped."""
    llm = get_peft_model(make_llm("llama"), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    total = sum(weight.numel() for name, weight in llm.named_parameters() if "_proj" in name and "lora_" not in name)
    wrapped = sum(weight.numel() for name, weight in llm.named_parameters() if "base_layer" in name)
    assert adapter_share(layer_weights(llm)) == wrapped / total


@pytest.mark.drill
@pytest.mark.parametrize("profile", ["multi_cpu", "zero3_cpu"])
def test_adapted_experts_have_the_same_losses_under_every_launcher(
    profile: str, finetune: Callable[..., Ended], corpus: Path, tmp_path: Path
) -> None:
    settings = ["lora.lora_dropout=0", "track.logging_steps=1", "train.batch_size=8"]
    assert finetune("mixtral", *settings).code == 0
    expected = losses(tmp_path / "run")
    common = [f"llm.path={tmp_path / 'mixtral'}", f"data.root={corpus}", f"run.output_dir={tmp_path / profile}"]
    common += ["init.projector=null", "llm.bits=32", "llm.dtype=float32", *settings]
    train = ["max_steps=2", "micro_batch_size=4", "preflight=false", "learning_rate=0.05", "warmup_ratio=0"]
    options = sets([*common, *(f"train.{setting}" for setting in train)])
    process = subprocess_command("finetune", "-r", "toy/tiny_finetune", "--launch", profile, *options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert losses(tmp_path / profile) == pytest.approx(expected, rel=1e-4)


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]
