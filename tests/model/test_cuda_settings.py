"""What GPUs need: no cuDNN attention, weights on their device, an adapter in 16 bits, sums in a fixed order.

All of this is set on every machine or can be switched on without a GPU, so it is tested on CPUs.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets
from families import make_llm
from torch import Tensor, nn

from signllava_cli.errors import UserError
from signllava_cli.model.cuda_settings import deterministic_algorithms
from signllava_cli.model.llm import load_llm
from signllava_cli.model.llm_forward import relative_difference
from signllava_cli.model.llm_parts import enable_activation_checkpointing
from signllava_cli.model.lora import add_lora, cast_adapter, compute_in_input_dtype
from signllava_cli.recipe import Lora, read_recipe

Command = Callable[..., Ended]
CPU = torch.device("cpu")


@pytest.fixture
def with_cudnn_attention() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.usefixtures("with_cudnn_attention")
def test_training_turns_cudnn_attention_off(signllava: Command, settings: list[str]) -> None:
    """cuDNN builds a plan per shape, and the shapes of batches do not repeat."""
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.max_steps=1"]))
    assert ended.code == 0, ended.err
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.usefixtures("with_cudnn_attention")
def test_generation_turns_cudnn_attention_off(signllava: Command, run: Path, corpus: Path, tmp_path: Path) -> None:
    words = ["--split", "dev", "--beams", 1, "--max-new-tokens", 1, *sets([f"data.root={corpus}"])]
    ended = signllava("generate", "--checkpoint", run, "--out", tmp_path / "out", *words)
    assert ended.code == 0, ended.err
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_rotary_angles_stay_exact(signllava: Command, settings: list[str]) -> None:
    """With TF32 the product of positions and frequencies would have three digits."""
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.max_steps=1"]))
    assert ended.code == 0, ended.err
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("bits", "dtype"), [(4, "bfloat16"), (16, "bfloat16"), (32, "float32")])
def test_weights_are_loaded_on_their_device(
    bits: int, dtype: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the CPU first: 8 ranks would hold 8 copies of the LLM in its memory."""
    from transformers import AutoModelForCausalLM

    device_maps: list[object] = []
    load = AutoModelForCausalLM.from_pretrained

    def spy(*args: Any, **kwargs: Any) -> Any:
        device_maps.append(kwargs["device_map"])
        return load(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spy)
    llm = load_llm(read_recipe("toy/tiny_pretrain", [*settings, f"llm.bits={bits}", f"llm.dtype={dtype}"]).llm, CPU)
    assert device_maps == [{"": CPU}]
    assert {parameter.device for parameter in llm.parameters()} == {CPU}
    assert not any(parameter.requires_grad for parameter in llm.parameters())


def test_memory_of_gpus_grows_in_segments(signllava: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    signllava("--version")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_allocator_settings_of_the_user_are_kept(
    name: str, signllava: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"PYTORCH_ALLOC_CONF": "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF": "PYTORCH_ALLOC_CONF"}[name]
    monkeypatch.setenv(other, "")
    monkeypatch.delenv(other)
    monkeypatch.setenv(name, "backend:cudaMallocAsync")
    signllava("--version")
    assert os.environ[name] == "backend:cudaMallocAsync"
    assert other not in os.environ


def adapted_llm(dtype: torch.dtype) -> Any:
    """A Llama in `dtype` with an adapter whose matrices B are not zero."""
    torch.manual_seed(0)
    llm = add_lora(make_llm("llama").to(dtype), Lora(enabled=True, r=8, lora_dropout=0.0))
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return llm


def dtypes_of_products(llm: Any) -> set[torch.dtype]:
    """A set that collects the dtypes of what the adapter's matrices compute."""
    dtypes: set[torch.dtype] = set()
    for name, module in llm.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default")):
            module.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    return dtypes


def logits_and_gradients(llm: Any) -> tuple[Tensor, dict[str, Tensor]]:
    llm.zero_grad()
    logits = llm(input_ids=torch.arange(3, 35)[None]).logits
    logits.float().pow(2).mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in llm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("has_checkpointing", [False, True])
def test_adapter_computes_in_16_bits_and_learns_in_32(has_checkpointing: bool) -> None:
    llm = adapted_llm(torch.bfloat16)
    if has_checkpointing:
        llm.train()
        enable_activation_checkpointing(llm)
    names, dtypes = [name for name, _ in llm.named_parameters()], dtypes_of_products(llm)
    expected_logits, expected = logits_and_gradients(llm)
    assert dtypes == {torch.float32}
    compute_in_input_dtype(llm)
    dtypes.clear()
    logits, gradients = logits_and_gradients(llm)
    assert dtypes == {torch.bfloat16}
    assert [name for name, _ in llm.named_parameters()] == names
    assert {p.dtype for name, p in llm.named_parameters() if "lora_" in name} == {torch.float32}
    assert logits.dtype == expected_logits.dtype
    assert relative_difference(logits, expected_logits) < 0.02
    assert gradients.keys() == expected.keys()
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    for name, gradient in gradients.items():
        assert relative_difference(gradient, expected[name]) < 0.1, name


def test_adapter_of_a_float32_llm_computes_in_32_bits() -> None:
    llm = adapted_llm(torch.float32)
    expected_logits, expected = logits_and_gradients(llm)
    compute_in_input_dtype(llm)
    logits, gradients = logits_and_gradients(llm)
    assert torch.equal(logits, expected_logits)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients.items())


@torch.no_grad()
def test_adapter_that_is_stored_in_16_bits_decodes_the_same() -> None:
    llm = adapted_llm(torch.bfloat16)
    compute_in_input_dtype(llm)
    expected = llm(input_ids=torch.arange(3, 35)[None]).logits
    cast_adapter(llm, torch.bfloat16)
    assert {parameter.dtype for parameter in llm.parameters()} == {torch.bfloat16}
    assert torch.equal(llm(input_ids=torch.arange(3, 35)[None]).logits, expected)


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_deterministic_runs_sum_in_a_fixed_order(
    is_deterministic: bool, signllava: Command, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from signllava_cli.generation import trial
    from signllava_cli.training import loop

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    states, sampling_states = [], []
    take_step, decode = loop.optimizer_step, trial.decode_all

    def spy_decoding(*args: Any) -> Any:
        sampling_states.append(torch.are_deterministic_algorithms_enabled())
        return decode(*args)

    def spy(*args: Any) -> Any:
        states.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # attention's gradients would vary
        return take_step(*args)

    monkeypatch.setattr(loop, "optimizer_step", spy)
    monkeypatch.setattr(trial, "decode_all", spy_decoding)
    # the preflight decodes by sampling, whose sums have no fixed order on GPUs
    more = ["train.max_steps=1", f"train.deterministic={is_deterministic}", "generate.temperature=1"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    assert sampling_states == [False]
    assert states == [(True, ":4096:8") if is_deterministic else (False, None)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_workspace_that_varies_is_refused(
    signllava: Command, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.deterministic=true"]))
    assert ended.code == 2
    assert "train.deterministic: cuBLAS is not deterministic with CUBLAS_WORKSPACE_CONFIG=:0:0" in ended.err


def test_an_operation_without_a_fixed_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    varying = torch.zeros(4)
    message = r"train\.deterministic: put_ .*; set it to false"
    with pytest.raises(UserError, match=message), deterministic_algorithms(True):
        varying.put_(torch.tensor([0, 0]), torch.ones(2))
    assert not torch.are_deterministic_algorithms_enabled()
