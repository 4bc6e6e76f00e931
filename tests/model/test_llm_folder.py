"""An LLM whose folder is incomplete, does not fit its config, or is no causal LLM is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets, subprocess_command
from families import make_tokenizer, write_family
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from signllava_cli.model.llm import load_llm
from signllava_cli.recipe import LLM

Command = Callable[..., Ended]
SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
}
UP = "model.layers.1.mlp.up_proj.weight"
BITS = ["llm.bits=32 llm.dtype=float32", "llm.bits=8", "llm.bits=4"]
ENCODER_DECODER = {
    "vocab_size": 512,
    "d_model": 64,
    "decoder_start_token_id": 2,
    "pad_token_id": 0,
    "eos_token_id": 2,
}


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> list[str]:
    """Overrides of a toy recipe that take one step, at once."""
    train = ["max_steps=1", "batch_size=4", "micro_batch_size=2", "preflight=false", "reuse_prefix=false"]
    return [
        f"data.root={corpus}",
        f"run.output_dir={tmp_path / 'run'}",
        *(f"train.{setting}" for setting in train),
    ]


@pytest.fixture
def save_llm(tmp_path: Path) -> Callable[[PreTrainedModel], Path]:
    """`save_llm(model)`: a folder with this model and a tokenizer."""

    def save(model: PreTrainedModel) -> Path:
        model.save_pretrained(tmp_path / "llm")
        make_tokenizer().save_pretrained(tmp_path / "llm")
        return tmp_path / "llm"

    return save


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pretrain(signllava: Command, settings: list[str], llm: Path, *more: str) -> Ended:
    return signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, f"llm.path={llm}", *more]))


def assert_refused(ended: Ended, *messages: str) -> None:
    assert ended.code == 2, ended.out
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    for message in ("llm.path", *messages):
        assert message in ended.err


def drop_layer(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.startswith("model.layers.1.")]:
        del weights[name]


def shorten(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.update({name: weights[name][:-32].contiguous()})


@pytest.mark.parametrize("bits", BITS)
def test_weights_that_are_missing_are_an_error(
    bits: str, signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    change_weights(llm, drop_layer)
    ended = pretrain(signllava, settings, llm, *bits.split())
    assert_refused(ended, "lacks 9 weights of LlamaForCausalLM", "model.layers.1.input_layernorm.weight")
    save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    change_weights(llm, lambda weights: weights.pop("lm_head.weight"))
    assert_refused(pretrain(signllava, settings, llm, *bits.split()), "lacks 1 weight of", "lm_head.weight")


def test_a_tied_head_is_not_missing(
    signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)))
    assert "lm_head.weight" not in load_file(llm / "model.safetensors")
    assert pretrain(signllava, settings, llm).code == 0


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(
    signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    """In training, a text with such a token would end in an IndexError, or in an assertion on a GPU."""
    folder = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES | {"vocab_size": 64})))
    assert_refused(pretrain(signllava, settings, folder), "has a token", "embeddings for 64 tokens only")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", [UP, "model.embed_tokens.weight"])
def test_weights_of_another_shape_than_the_config_says_are_an_error(
    name: str, bits: str, signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    rows = load_file(llm / "model.safetensors")[name].shape[0]
    change_weights(llm, shorten(name))
    ended = pretrain(signllava, settings, llm, *bits.split())
    assert_refused(ended, name, f"({rows - 32}, 64)", f"({rows}, 64)", "config.json")


@pytest.mark.parametrize("bits", [BITS[0], BITS[2]])
def test_experts_that_are_missing_or_of_another_shape_are_an_error(
    bits: str, signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    llm = save_llm(MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)))
    expert = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    original = (llm / "model.safetensors").read_bytes()
    for change in (lambda weights: weights.pop(expert), shorten(expert)):
        (llm / "model.safetensors").write_bytes(original)
        change_weights(llm, change)
        assert_refused(pretrain(signllava, settings, llm, *bits.split()), "does not fit the experts", "config.json")


def test_weights_that_the_config_leaves_no_room_for_are_an_error(
    signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    """A layer too many, or a bias that the config lacks: the model would compute something else."""
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert_refused(pretrain(signllava, settings, llm), "model.layers.1.input_layernorm.weight", "config.json")
    (llm / "config.json").write_text(json.dumps(config))
    change_weights(
        llm,
        lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(SIZES["hidden_size"])}),
    )
    assert_refused(pretrain(signllava, settings, llm), "model.layers.0.self_attn.q_proj.bias", "config.json")


def test_weights_of_other_parts_are_counted_and_named(
    signllava: Command, settings: list[str], save_llm: Callable[[PreTrainedModel], Path]
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    extra = {f"vision_tower.layers.{number}.fc.weight": torch.ones(2, 2) for number in range(7)}
    extra |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}  # a buffer of old checkpoints
    change_weights(llm, lambda weights: weights.update(extra))
    ended = pretrain(signllava, settings, llm)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("warning: ") and str(llm) in line]
    assert "7 weights that LlamaForCausalLM does not use" in line
    assert "vision_tower.layers.0.fc.weight" in line
    assert "inv_freq" not in line


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: BartForConditionalGeneration(
                BartConfig(**ENCODER_DECODER, encoder_layers=1, decoder_layers=1, forced_eos_token_id=None)
            ),
            "BartForConditionalGeneration is an encoder-decoder model",
        ),
        (
            lambda: T5ForConditionalGeneration(T5Config(**ENCODER_DECODER, num_layers=1)),
            "T5ForConditionalGeneration is an encoder-decoder model",
        ),
        (lambda: BertForMaskedLM(BertConfig(**SIZES)), "BertForMaskedLM is not a causal LLM"),
    ],
    ids=["bart", "t5", "bert"],
)
def test_models_that_are_not_causal_llms_are_refused_by_class(
    model: Callable[[], PreTrainedModel],
    message: str,
    signllava: Command,
    settings: list[str],
    save_llm: Callable[[PreTrainedModel], Path],
) -> None:
    assert_refused(pretrain(signllava, settings, save_llm(model())), message)


def test_buffers_of_old_checkpoints_are_no_misfit(tmp_path: Path) -> None:
    """GPT-2 of the hub has a mask beside each attention, which is named like a bias."""
    folder = write_family("gpt2", tmp_path)
    change_weights(folder, lambda weights: weights.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}))
    assert load_llm(LLM(path=str(folder), bits=32, dtype="float32"), torch.device("cpu")).config.n_layer == 2


def test_prepare_llm_does_not_complete_a_folder_with_random_weights(
    signllava: Command, save_llm: Callable[[PreTrainedModel], Path], tmp_path: Path
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    change_weights(llm, drop_layer)
    ended = signllava("prepare", "llm", llm, "--out", tmp_path / "copy")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "lacks 9 weights of LlamaForCausalLM" in ended.err
    save_llm(BertForMaskedLM(BertConfig(**SIZES)))
    ended = signllava("prepare", "llm", llm, "--out", tmp_path / "copy")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "BertForMaskedLM is not a causal LLM" in ended.err
    assert not (tmp_path / "copy").exists()


@pytest.mark.drill
@pytest.mark.parametrize("change", [drop_layer, shorten(UP)], ids=["missing", "shape"])
def test_zero3_refuses_the_same_folders(
    change: Callable[[dict[str, Tensor]], object],
    settings: list[str],
    save_llm: Callable[[PreTrainedModel], Path],
) -> None:
    llm = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    change_weights(llm, change)
    options = sets([*settings, f"llm.path={llm}"])
    process = subprocess_command("pretrain", "-r", "toy/tiny_pretrain", "--launch", "zero3_cpu", *options)
    output, _ = process.communicate(timeout=300)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert errors
    assert all("llm.path" in line and "model.layers.1." in line for line in errors), output


def test_a_damaged_folder_is_not_copied(
    signllava: Command,
    save_llm: Callable[[PreTrainedModel], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_llm(LlamaForCausalLM(LlamaConfig(**SIZES)))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    ended = signllava("prepare", "llm", folder, "--out", tmp_path / "copy")
    assert (ended.code, f"{folder} cannot be loaded: " in ended.err) == (2, True), ended.err
    for error, text in ((ImportError("sentencepiece is not installed"), "sentencepiece"), (OSError(), "OSError")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
        ended = signllava("prepare", "llm", folder, "--out", tmp_path / "copy")
        assert (ended.code, f"{folder} cannot be loaded: {text}" in ended.err) == (2, True), ended.err
