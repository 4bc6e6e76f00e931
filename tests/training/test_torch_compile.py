"""With `train.torch_compile`, training runs as one graph that all layers share, and computes the same."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from signllava_cli.machine_checks.check_llm import check_llm
from signllava_cli.model.llm_forward import divide_forward
from signllava_cli.model.llm_mode import eval_mode, set_frozen_mode
from signllava_cli.model.llm_parts import compile_layers, enable_activation_checkpointing
from signllava_cli.model.prefix_cache import build_prefix_cache
from signllava_cli.recipe import read_recipe

Command = Callable[..., Ended]
NUM_LAYERS = torch._dynamo.config.recompile_limit + 2  # torch stops compiling at the limit


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and graphs are captured and differentiated, but not translated to C++."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **kw: compile_module(module, backend="aot_eager", **kw))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def num_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.drill
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("has_checkpointing", [False, True])
def test_steps_run_as_one_graph(
    stage: str, has_checkpointing: bool, signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    more = [f"train.gradient_checkpointing={has_checkpointing}", "init.projector=null", "lora.lora_dropout=0"]
    for is_compiled in (False, True):
        run = [f"run.output_dir={tmp_path / str(is_compiled)}", f"train.torch_compile={is_compiled}"]
        ended = signllava(stage, "-r", f"toy/tiny_{stage}", *sets([*settings, *more, *run]))
        assert ended.code == 0, ended.err
        assert num_graphs() == is_compiled
    assert not counters["graph_break"]
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=1e-5)


@pytest.mark.drill
@pytest.mark.parametrize("has_checkpointing", [False, True])
def test_many_layers_share_the_graph(has_checkpointing: bool) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    llm: Any = LlamaForCausalLM(LlamaConfig(num_hidden_layers=NUM_LAYERS, vocab_size=64, **sizes))
    llm.requires_grad_(False)
    if has_checkpointing:
        enable_activation_checkpointing(llm)
    forward = divide_forward(llm)
    prefix = build_prefix_cache(llm, forward, torch.arange(3, 14), max_seq_len=64)
    prefix.attach()
    set_frozen_mode(llm)

    def states_and_gradients() -> list[Tensor]:
        results = []
        for size in ((3, 20), (3, 27), (2, 33)):
            ids = torch.arange(size[0] * size[1]).view(size) % forward.num_tokens
            embeddings = forward.embed(ids).detach().requires_grad_()  # (B, L, hidden)
            hidden = forward.decoder(inputs_embeds=embeddings, use_cache=False, **prefix.arguments(embeddings))
            hidden.last_hidden_state.pow(2).mean().backward()
            assert embeddings.grad is not None
            results += [hidden.last_hidden_state.detach(), embeddings.grad]
        return results

    expected = states_and_gradients()
    compile_layers(llm)
    results = states_and_gradients()
    assert all(map(torch.allclose, results, expected))
    assert not counters["graph_break"]
    assert num_graphs() == 1


@pytest.mark.drill
def test_the_check_of_a_machine_compiles_as_a_run(settings: list[str]) -> None:
    """The probes of the prefix cache before its training step would each be compiled for every layer."""
    recipe = read_recipe("toy/tiny_pretrain", [*settings, "train.torch_compile=true"])
    results = {result.name: result for result in check_llm(recipe)}
    assert "with prefix cache" in results["training step"].seen
    assert num_graphs() == 1


def test_decoding_and_probes_are_not_compiled() -> None:
    """Each layer has its own arguments there: this would use up the limit, and training would not be compiled."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    llm: Any = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=64, **sizes))
    compile_layers(llm)
    with eval_mode(llm):
        llm(input_ids=torch.arange(3, 14)[None], use_cache=False)
    assert num_graphs() == 0
    llm(input_ids=torch.arange(3, 14)[None], use_cache=False)
    assert num_graphs() == 1


def test_layers_that_cannot_be_compiled_are_an_error_of_the_preflight(
    signllava: Command, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.")

    def compile_module(module: Any, **options: Any) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend=fail, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_module)
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.torch_compile=true"]))
    assert ended.code == 2, ended.err
    assert "Failed to find C compiler" in ended.err
    assert "set train.torch_compile=false" in ended.err
