"""Conversion of Sign_LLaVA checkpoints: equal outputs, every tensor reported, no code run."""

import collections
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from signllava_cli.model.checkpoint import checkpoint_recipe, find_damage, read_config
from signllava_cli.model.loading import load_checkpoint_bundle

Command = Callable[..., Ended]
HIDDEN = 128  # of the tiny LLM
WIDTHS = {"mae": 64, "sign2vec": 48}  # in the order in which Sign_LLaVA joins them


def sequential(width: int, depth: int = 2) -> nn.Sequential:
    """`mlpNx_gelu` as created by LLaVA's build_vision_projector."""
    layers: list[nn.Module] = [nn.Linear(width, HIDDEN)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(HIDDEN, HIDDEN)]
    return nn.Sequential(*layers)


@pytest.fixture
def projectors() -> dict[str, nn.Module]:
    torch.manual_seed(5)
    return {stream: sequential(width).to(torch.bfloat16) for stream, width in WIDTHS.items()}


def tensors_of(projectors: dict[str, nn.Module], prefix: str = "model.") -> dict[str, Tensor]:
    return {
        f"{prefix}{stream}_projector.{name}": tensor.detach()
        for stream, projector in projectors.items()
        for name, tensor in projector.state_dict().items()
    }


def deepspeed_states(tensors: dict[str, Tensor], **more: object) -> dict[str, Any]:
    """The contents of a checkpoint file of DeepSpeed, without an optimizer."""
    module = collections.OrderedDict(tensors)
    return {
        "module": module,
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [collections.OrderedDict((name, tensor.shape) for name, tensor in module.items())],
        "frozen_param_shapes": None,
        "lr_scheduler": {"last_epoch": 120, "_last_lr": [2e-3], "lr_lambdas": [{}]},
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 120,
        "ds_config": {"zero_optimization": {"stage": 2}},
        "ds_version": "0.14.4",
        **more,
    }


def save_states(folder: Path, content: object) -> Path:
    file = folder / "mp_rank_00_model_states.pt"
    torch.save(content, file)
    return file


def convert(signllava: Command, settings: list[str], source: Path, out: Path, *words: str) -> Ended:
    arguments = ["-r", "toy/tiny_pretrain", *words, *sets(settings)]
    return signllava("checkpoint", "convert", source, "--out", out, *arguments)


def assert_refused(ended: Ended, *messages: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    for message in messages:
        assert message in ended.err


def test_a_converted_projector_equals_the_original(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tmp_path: Path
) -> None:
    """And the checkpoint is valid, and usable by generate and init.projector."""
    out = tmp_path / "converted"
    ended = convert(signllava, settings, save_states(tmp_path, deepspeed_states(tensors_of(projectors))), out)
    assert ended.code == 0, ended.err
    assert find_damage(out) is None
    assert (read_config(out).stage, read_config(out).step) == ("pretrain", 120)
    assert "converted from mp_rank_00_model_states.pt" in read_config(out).data
    assert "streams.mae.normalize_input: True -> False" in ended.out
    assert "boundary vectors of mae: newly initialized" in ended.out
    for stream in WIDTHS:
        for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
            assert f"model.{stream}_projector.{name}" in ended.out
            assert f"{stream}.layers.{name}" in ended.out
    model: Any = load_checkpoint_bundle(out, checkpoint_recipe(out, []), torch.device("cpu")).model
    std = float(model.llm.get_input_embeddings().weight.float().std())
    for stream, projector in projectors.items():
        frames = torch.randn(20, WIDTHS[stream])
        expected = projector.float()(frames)
        assert torch.equal(model.projectors[stream].embed(frames), expected)
        assert 0.7 < float(model.projectors[stream].boundary.detach().std()) / std < 1.3
    assert signllava("generate", "-c", out, "--split", "dev").code == 0
    more = [*settings, "train.max_steps=1", f"init.projector={out}"]
    assert signllava("pretrain", "-r", out / "recipe.yaml", *sets(more)).code == 0


def test_streams_are_in_the_order_of_the_recipe_or_of_the_option(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tmp_path: Path
) -> None:
    source = save_states(tmp_path, deepspeed_states(tensors_of(projectors)))
    ended = convert(signllava, settings, source, tmp_path / "a")
    assert list(checkpoint_recipe(tmp_path / "a", []).streams) == ["sign2vec", "mae"]
    assert "--streams mae,sign2vec keeps the order of Sign_LLaVA" in ended.out
    ended = convert(signllava, settings, source, tmp_path / "b", "--streams", "mae,sign2vec")
    assert list(checkpoint_recipe(tmp_path / "b", []).streams) == ["mae", "sign2vec"]
    assert "warning: Sign_LLaVA joined" not in ended.out
    ended = convert(signllava, settings, source, tmp_path / "c", "--streams", "mae")
    assert ended.out.count("ignored: --streams omits it") == 4
    assert set(load_file(tmp_path / "c" / "projector.safetensors")) == {
        *(f"mae.layers.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")),
        "mae.boundary",
    }
    assert_refused(convert(signllava, settings, source, tmp_path / "d", "--streams", "dino"), "--streams dino", "mae")


def test_a_projector_that_sign_llava_does_not_have_is_refused(
    signllava: Command, settings: list[str], tmp_path: Path, projectors: dict[str, nn.Module]
) -> None:
    source, out = save_states(tmp_path, deepspeed_states(tensors_of(projectors))), tmp_path / "out"
    shorter = sets(["streams.mae.stack=2", "streams.sign2vec.conv.stride=2"])
    ended = convert(signllava, settings, source, out, *shorter)
    assert_refused(ended, "streams.sign2vec.conv, streams.mae.stack: Sign_LLaVA has no such projectors")
    assert not out.exists()


def table_with_markers(tiny_llm: Path) -> Tensor:
    """The embeddings of the LLM, `<unk>`, `<video_start>` and `<video_end>`, as Sign_LLaVA saves them."""
    table = AutoModelForCausalLM.from_pretrained(tiny_llm).get_input_embeddings().weight.detach()
    return torch.cat(
        [table, torch.full((1, HIDDEN), 1.0), torch.full((1, HIDDEN), 2.0), torch.full((1, HIDDEN), 3.0)]
    )


def test_boundary_vectors_are_the_embeddings_of_the_markers(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tiny_llm: Path, tmp_path: Path
) -> None:
    table = table_with_markers(tiny_llm)
    source = save_states(tmp_path, deepspeed_states({**tensors_of(projectors), "model.embed_tokens.weight": table}))

    def boundaries(name: str, *words: str) -> tuple[dict[str, Tensor], str]:
        ended = convert(signllava, settings, source, tmp_path / name, *words)
        assert ended.code == 0, ended.err
        weights = load_file(tmp_path / name / "projector.safetensors")
        return {stream: weights[f"{stream}.boundary"] for stream in WIDTHS}, ended.out

    vectors, output = boundaries("default")
    for stream in WIDTHS:
        assert torch.equal(vectors[stream], table[-2:])
        assert f"boundary vectors of {stream}: rows {len(table) - 2} and {len(table) - 1}" in output
    assert "newly initialized" not in output
    assert "differ from those of" not in output
    vectors, output = boundaries("chosen", "--boundary-rows", "none", "--boundary-rows", "mae=3,7")
    assert torch.equal(vectors["mae"], table[[3, 7]])
    assert "boundary vectors of sign2vec: newly initialized" in output
    ended = convert(signllava, settings, source, tmp_path / "x", "--boundary-rows", f"mae=0,{len(table)}")
    assert_refused(ended, f"row {len(table)}")
    assert_refused(
        convert(signllava, settings, source, tmp_path / "x", "--boundary-rows", "pose=1,2"), "not a converted stream"
    )
    assert_refused(convert(signllava, settings, source, tmp_path / "x", "--boundary-rows", "mae"), "STREAM=START,END")
    table[17] += 1
    save_states(tmp_path, deepspeed_states({**tensors_of(projectors), "model.embed_tokens.weight": table}))
    assert "warning: 1 of" in boundaries("trained embeddings")[1]


def test_an_adapter_is_converted_if_the_recipe_has_one(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tiny_llm: Path, tmp_path: Path
) -> None:
    """With DeepSpeed's prefix `module.`; Sign_LLaVA silently loads no such adapter."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm)
    targets = ("q_proj", "v_proj")
    tensors = tensors_of(projectors, "module.base_model.model.model.")
    torch.manual_seed(7)
    for name, layer in llm.named_modules():
        if name.endswith(targets):
            stem = f"module.base_model.model.{name}.lora_"
            tensors[f"{stem}A.default.weight"] = torch.randn(8, layer.in_features, dtype=torch.bfloat16)
            tensors[f"{stem}B.default.weight"] = torch.randn(layer.out_features, 8, dtype=torch.bfloat16)
    source = save_states(tmp_path, deepspeed_states(tensors))
    ended = convert(signllava, settings, source, tmp_path / "without")
    assert ended.code == 0, ended.err
    assert "ignored: lora.enabled is false" in ended.out
    assert "warning: the adapter is not converted" in ended.out
    assert not (tmp_path / "without" / "adapter").exists()
    ended = convert(signllava, settings, source, tmp_path / "with", "-r", "toy/tiny_finetune")
    assert ended.code == 0, ended.err
    assert "lora.r: 16 -> 8" in ended.out
    recipe = checkpoint_recipe(tmp_path / "with", [])
    assert (recipe.lora.r, set(recipe.lora.target_modules)) == (8, set(targets))
    model = load_checkpoint_bundle(tmp_path / "with", recipe, torch.device("cpu")).model
    adapter = {name: weight for name, weight in model.llm.named_parameters() if "lora_" in name}
    assert len(adapter) == 4 * llm.config.num_hidden_layers
    for name, weight in adapter.items():
        assert torch.equal(weight, tensors[f"module.{name}"].float())
    del tensors["module.base_model.model.model.layers.1.self_attn.v_proj.lora_A.default.weight"]
    incomplete = save_states(tmp_path, deepspeed_states(tensors))
    assert_refused(
        convert(signllava, settings, incomplete, tmp_path / "x", "-r", "toy/tiny_finetune"), "lacks 1 tensor "
    )
    without_adapter = save_states(tmp_path, deepspeed_states(tensors_of(projectors)))
    assert_refused(
        convert(signllava, settings, without_adapter, tmp_path / "x", "-r", "toy/tiny_finetune"), "has no adapter"
    )


def test_trainer_folders_and_other_files_are_read(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tmp_path: Path
) -> None:
    tensors = tensors_of(projectors)
    folder = tmp_path / "checkpoint-120"
    for step in (40, 120):
        (folder / f"global_step{step}").mkdir(parents=True)
        save_states(folder / f"global_step{step}", deepspeed_states(tensors, global_steps=step))
    assert convert(signllava, settings, folder, tmp_path / "a").code == 0
    assert read_config(tmp_path / "a").step == 120
    other = tmp_path / "other"
    other.mkdir()
    torch.save(tensors, other / "non_lora_trainables.bin", _use_new_zipfile_serialization=False)
    assert convert(signllava, settings, other, tmp_path / "b").code == 0
    save_file(tensors, tmp_path / "model.safetensors")
    assert convert(signllava, settings, tmp_path / "model.safetensors", tmp_path / "c").code == 0
    files = [load_file(tmp_path / name / "projector.safetensors") for name in "abc"]
    assert all(torch.equal(files[0][name], file[name]) for file in files for name in files[0])
    assert_refused(convert(signllava, settings, tmp_path / "missing", tmp_path / "d"), "No Sign_LLaVA checkpoint")
    (tmp_path / "empty").mkdir()
    assert_refused(convert(signllava, settings, tmp_path / "empty", tmp_path / "d"), "non_lora_trainables.bin")


@pytest.mark.parametrize("kind", ["linear", "mlp1x_gelu", "mlp3x_gelu"])
def test_every_kind_of_projector_is_recognized(
    signllava: Command, settings: list[str], tmp_path: Path, kind: str
) -> None:
    projector = nn.Linear(64, HIDDEN) if kind == "linear" else sequential(64, int(kind[3]))
    source = save_states(tmp_path, deepspeed_states(tensors_of({"mae": projector})))
    assert convert(signllava, settings, source, tmp_path / "out").code == 0
    recipe = checkpoint_recipe(tmp_path / "out", [])
    assert recipe.streams["mae"].projector == kind
    model: Any = load_checkpoint_bundle(tmp_path / "out", recipe, torch.device("cpu")).model
    frames = torch.randn(9, 64)
    assert torch.equal(model.projectors["mae"].embed(frames), projector(frames))


class MaliciousPickle:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.reliability("Security", "data is never run as code: no pickle, no eval, safe YAML")
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_file_is_not_run(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tmp_path: Path, is_zip: bool
) -> None:
    folder = tmp_path / "created"
    states = deepspeed_states(tensors_of(projectors), optimizer=MaliciousPickle(folder))
    file = tmp_path / "mp_rank_00_model_states.pt"
    torch.save(states, file, _use_new_zipfile_serialization=is_zip)
    ended = convert(signllava, settings, file, tmp_path / "out")
    assert_refused(ended, "mp_rank_00_model_states.pt", "mkdir" if is_zip else "not a PyTorch file of tensors")
    assert not folder.exists()
    assert not (tmp_path / "out").exists()


def test_invalid_files_give_one_line_errors(
    signllava: Command, settings: list[str], projectors: dict[str, nn.Module], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tensors = tensors_of(projectors)

    def assert_content_refused(content: object, *messages: str) -> None:
        assert_refused(convert(signllava, settings, save_states(tmp_path, content), out), *messages)
        assert not out.exists()

    def without(name: str) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in tensors.items() if key != name}

    assert_content_refused(
        deepspeed_states(without("model.mae_projector.2.bias")), "mae_projector lacks layers.2.bias"
    )
    assert_content_refused(
        deepspeed_states(without("model.mae_projector.0.weight")), "mae_projector lacks layers.0.weight"
    )
    norm = {**tensors, "model.mae_projector.1.weight": torch.ones(HIDDEN)}
    assert_content_refused(deepspeed_states(norm), "mae_projector.1.weight is not part of a linear layer")
    other = {**tensors, "model.mae_projector.2.weight": torch.ones(HIDDEN, 3)}
    assert_content_refused(deepspeed_states(other), "mae_projector are inconsistent")
    nan = {**tensors, "model.mae_projector.2.bias": torch.full((HIDDEN,), torch.nan)}
    assert_content_refused(deepspeed_states(nan), "mae_projector.2.bias", "not finite")
    duplicate = {**tensors, "module.mae_projector.2.bias": torch.ones(HIDDEN)}
    assert_content_refused(deepspeed_states(duplicate), "one tensor twice")
    assert_content_refused(
        deepspeed_states({"model.norm.weight": torch.ones(3)}), "no projector", "model.norm.weight"
    )
    parts = {name: torch.empty(0) for name in tensors}
    assert_content_refused(deepspeed_states(parts), "ZeRO-3", "zero_to_fp32.py")
    assert_content_refused([1, 2], "expected a dict")
    tables = {f"{name}.weight": torch.ones(9, HIDDEN) for name in ("model.embed_tokens", "module.model.embed_tokens")}
    assert_content_refused(deepspeed_states({**tensors, **tables}), "two embedding tables")
    table = {"model.embed_tokens.weight": torch.ones(9, 3)}
    assert_content_refused(
        deepspeed_states({**tensors, **table}), "has shape (9, 3), but the projectors require rows"
    )
    half = {"model.layers.0.self_attn.q_proj.lora_B.default.weight": torch.ones(HIDDEN, 2)}
    assert_content_refused(deepspeed_states({**tensors, **half}), "an incomplete adapter: lora_A is missing")
    for entry in (torch.ones(HIDDEN, dtype=torch.complex64), torch.ones(HIDDEN).to_sparse()):
        wrong = deepspeed_states({**tensors, "model.mae_projector.2.bias": entry})
        assert_content_refused(wrong, "mae_projector.2.bias is not a dense tensor of real numbers")
    narrow = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 96))
    assert_content_refused(
        deepspeed_states(tensors_of({"mae": narrow})), "embeddings of 96 numbers", "has 128", "llm.path"
    )
    assert_content_refused(deepspeed_states(tensors_of({**projectors, "mae": narrow})), "not of one LLM")
    content = save_states(tmp_path, deepspeed_states(tensors)).read_bytes()
    for size in (len(content) // 2, 100, 0):
        (tmp_path / "truncated.pt").write_bytes(content[:size])
        assert_refused(convert(signllava, settings, tmp_path / "truncated.pt", out), "truncated.pt")
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    assert_refused(convert(signllava, settings, save_states(tmp_path, deepspeed_states(tensors)), out), "not empty")


DEEPSPEED_RUN = """
import sys, torch, deepspeed
from torch import nn
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # not needed by one process, and it is compiled
deepspeed.init_distributed(dist_backend="gloo")
model = nn.Module()
model.model = nn.Module()
model.model.frozen = nn.Linear(4, 4).requires_grad_(False)
torch.manual_seed(5)
projector = model.model.mae_projector = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128))
model.forward = lambda frames: projector(frames).float().pow(2).mean()
adamw = {"type": "AdamW", "params": {"lr": 0.001, "torch_adam": True}}
config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}, "bf16": {"enabled": True},
          "optimizer": adamw}
engine, *_ = deepspeed.initialize(model=model, model_parameters=list(projector.parameters()), config=config)
for _ in range(3):
    engine.backward(engine(torch.randn(2, 64, dtype=torch.bfloat16)))
    engine.step()
engine.save_checkpoint(sys.argv[1], exclude_frozen_parameters=True)
"""


@pytest.mark.drill
def test_a_checkpoint_of_deepspeed_is_converted(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    """With `exclude_frozen_parameters`, as in Sign_LLaVA's modified transformers."""
    environment = {**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    ran = subprocess.run(
        [sys.executable, "-c", DEEPSPEED_RUN, str(tmp_path)],
        env={**environment, "MASTER_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    ended = convert(signllava, settings, tmp_path, tmp_path / "out")
    assert ended.code == 0, ended.err
    inspection = json.loads(signllava("checkpoint", "inspect", tmp_path / "out", "--json").out)
    assert (inspection["config"]["step"], [part["name"] for part in inspection["parts"]]) == (3, ["projector mae"])
