"""What 4 bits leave unquantized is printed with its memory, and known before the LLM is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, sets
from families import write_family

from signllava_cli.model import llm
from signllava_cli.model.layer_weights import layer_weights, quantized_share, weights_memory
from signllava_cli.model.llm import load_llm, outline
from signllava_cli.recipe import LLM

Command = Callable[..., Ended]
CPU = torch.device("cpu")


def in_4_bits(folder: Path) -> LLM:
    return LLM(path=str(folder), bits=4, dtype="float32", attn_implementation="eager")


@pytest.mark.parametrize(("family", "share"), [("llama", 1.0), ("mixtral", 0.11), ("gpt_oss", 0.11), ("gpt2", 1.0)])
def test_the_outline_of_an_llm_knows_what_bitsandbytes_quantizes(family: str, share: float, tmp_path: Path) -> None:
    config = in_4_bits(write_family(family, tmp_path))
    expected, loaded = outline(config), load_llm(config, CPU)
    assert layer_weights(expected) == layer_weights(loaded)
    assert quantized_share(layer_weights(loaded)) == pytest.approx(share, abs=0.01)
    assert weights_memory(expected) == weights_memory(loaded)
    packed = sum(weight.nbytes for weight in loaded.parameters())
    constants = sum(
        tensor.nbytes
        for module in loaded.modules()
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None
        for tensor in (state.absmax, state.state2.absmax)
    )
    assert weights_memory(loaded) == pytest.approx(packed + constants, rel=0.01)


def test_a_run_prints_what_4_bits_leave_unquantized(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    def pretrain(family: str) -> str:
        settings = [f"llm.path={write_family(family, tmp_path / family)}", f"data.root={corpus}", "llm.bits=4"]
        train = ["max_steps=1", "batch_size=4", "micro_batch_size=4", "preflight=false"]
        settings += [f"run.output_dir={tmp_path / 'runs' / family}", *(f"train.{key}" for key in train)]
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings))
        assert ended.code == 0, ended.err
        return ended.out

    (line,) = [line for line in pretrain("mixtral").splitlines() if line.startswith("llm.bits=4")]
    assert line.startswith("llm.bits=4: 11 % of the layers' weights are quantized")
    assert "experts.gate_up_proj, experts.down_proj" in line
    assert "MiB" in line
    assert "llm.bits=4:" not in pretrain("llama")


def test_an_llm_that_does_not_fit_is_refused_before_it_is_loaded(
    signllava: Command, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is simulated by its free memory, which would be enough if all of Mixtral's layers were in 4 bits."""
    memory = weights_memory(outline(in_4_bits(write_family("mixtral", tmp_path / "llm"))))
    settings = [f"llm.path={tmp_path / 'llm'}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
    settings += ["llm.bits=4", "llm.dtype=float32", "train.max_steps=1", "train.preflight=false"]
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets(settings)]
    monkeypatch.setattr(llm, "free_memory", lambda device: memory / 2)
    ended = signllava(*command)
    assert ended.code == 2, ended.out
    assert len(ended.err.strip().splitlines()) == 1
    assert "because only 11 % of the layers' weights are quantized, but the GPU has" in ended.err
    monkeypatch.setattr(llm, "free_memory", lambda device: memory)
    assert signllava(*command).code == 0
