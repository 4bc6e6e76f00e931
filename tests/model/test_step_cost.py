"""FLOPs and memory of a fake model: those of the real one, and of the published configs as torch counts them."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import Example, Truncation
from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.data.prompts import Prompt
from signllava_cli.model.cost_counter import CostCounter
from signllava_cli.model.fake_model import BatchShape, fake_batch, fake_model
from signllava_cli.model.llm_memory import outline_llm
from signllava_cli.model.llm_parts import decoder_layers, enable_activation_checkpointing
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.model.lora import compute_in_input_dtype
from signllava_cli.model.step_cost import TrainingCost, prefill_cost, training_cost
from signllava_cli.recipe import Recipe, read_recipe

CPU = torch.device("cpu")
LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
QWEN = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151_936, "head_dim": 128}
# The sizes of the published config.json files.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3-8B": ("llama", {**LLAMA, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32}),
    "Llama-3.2-1B": (
        "llama",
        {
            **LLAMA,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "Qwen3-8B": ("qwen3", {**QWEN, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36}),
}
BYTES_PER_TOKEN = {"Llama-3-8B": 4.7e6, "Llama-3.2-1B": 1.3e6, "Qwen3-8B": 5.6e6}  # what a frozen LLM keeps
NUM_PARAMETERS = {"Llama-3-8B": 8_030_261_248, "Llama-3.2-1B": 1_235_814_400, "Qwen3-8B": 8_190_735_360}


def published_config(name: str) -> Any:
    from transformers import AutoConfig

    model_type, sizes = PUBLISHED[name]
    return AutoConfig.for_model(model_type, **sizes)


@pytest.fixture(
    params=[
        "Llama-3-8B",
        pytest.param("Llama-3.2-1B", marks=pytest.mark.drill),
        pytest.param("Qwen3-8B", marks=pytest.mark.drill),
    ]
)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an LLM, whose config.json is written to `tmp_path`."""
    published_config(request.param).save_pretrained(tmp_path)
    return str(request.param)


class SavedTensors:
    """The bytes that a forward pass saves for its backward pass, as autograd itself reports them.

    Each storage counts once, and those of `existing` tensors do not.
    """

    def __init__(self, existing: list[Tensor]) -> None:
        self.existing = {tensor.untyped_storage()._cdata for tensor in existing}
        self.saved: dict[int, Tensor] = {}

    def hooks(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.saved.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in self.existing:
            self.saved[key] = tensor
        return tensor


def measured(recipe: Recipe, shape: BatchShape, checkpointing: bool, with_prefix: bool) -> TrainingCost:
    """The cost of a real step on real tensors; `activations` are what autograd saves."""
    model = load_model_bundle(recipe, CPU).model
    if recipe.lora.enabled:
        compute_in_input_dtype(model.llm)
    model.train()
    if checkpointing:
        enable_activation_checkpointing(model.llm)
    if with_prefix:
        assert model.reuse_prefix(tuple(range(shape.prefix_len)), 64)
    for parameter in model.trainable_parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    batch = fake_batch(shape, projector_inputs(recipe.streams), omit_prefix=with_prefix)  # real: no mode is active
    prefix = [*model.prefix.keys.values(), *model.prefix.values.values()] if model.prefix else []
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    existing = [*model.parameters(), *model.buffers(), *gradients, *prefix]
    saved, counter = SavedTensors(existing), CostCounter(existing)
    with counter:
        with saved.hooks():
            loss, _ = model(batch)
        counter.reset_peak()
        loss.backward()
    return TrainingCost(counter.flops, 0.0, saved.num_bytes, 0.0, counter.peak - saved.num_bytes)


@pytest.mark.parametrize("case", ["plain", "prefix", "checkpointing", "adapter", "adapter in 4 bits"])
def test_a_fake_step_costs_what_a_real_step_costs(case: str, settings: list[str]) -> None:
    stage = "finetune" if "adapter" in case else "pretrain"
    more = ["init.projector=null", "lora.lora_dropout=0"] if stage == "finetune" else []  # CPUs have no fused dropout
    more += ["llm.dtype=float32", "llm.bits=4" if "4 bits" in case else "llm.bits=32"]
    recipe = read_recipe(f"toy/tiny_{stage}", [*settings, *more])
    names = projector_inputs(recipe.streams)
    shape = BatchShape(3, 90, 12, 5, dict.fromkeys(names, 60 // len(names)))
    real = measured(recipe, shape, case == "checkpointing", case == "prefix")
    with fake_model(recipe) as model:
        assert len(decoder_layers(model.llm)) == 4  # computed from those of 2 and 3 layers
        fake = training_cost(model, shape, case == "checkpointing", case == "prefix")
    if "4 bits" not in case:  # bitsandbytes' own products are not counted
        assert fake.flops == pytest.approx(real.flops, rel=1e-6)
    if case != "checkpointing":
        assert fake.activations == pytest.approx(real.activations, rel=0.1)
    if case != "adapter in 4 bits":
        assert fake.activations + fake.backward == pytest.approx(real.activations + real.backward, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_of_published_llms_are_what_autograd_saves(
    published: str, checkpointing: bool, tmp_path: Path
) -> None:
    """In a forward pass of all layers of the LLM."""
    recipe = read_recipe("pretrain", [f"llm.path={tmp_path}"])
    shape = BatchShape(2, 500, 40, 30, dict.fromkeys(recipe.streams, 80))
    with fake_model(recipe) as model:
        assert model.num_llm_parameters == NUM_PARAMETERS[published]
        cost = training_cost(model, shape, checkpointing, with_prefix=False)
        saved = SavedTensors([*model.parameters(), *model.buffers()])
        with saved.hooks():
            embeddings = model.embed(fake_batch(shape, model.inputs, omit_prefix=False))
            output = model.llm_forward.decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    expected = saved.num_bytes + output.nbytes  # saved for the loss
    assert cost.activations == pytest.approx(expected, rel=0.1)
    if not checkpointing:
        assert cost.activations / shape.num_tokens == pytest.approx(BYTES_PER_TOKEN[published], rel=0.1)


def test_flops_of_published_llms_are_those_of_the_flop_counter(published: str, tmp_path: Path) -> None:
    """Forward and backward pass of all layers on the device `meta`, where attention is not fused."""
    recipe = read_recipe("pretrain", [f"llm.path={tmp_path}", "streams={mae: {width: 64, projector: linear}}"])
    shape = BatchShape(2, 500, 40, 1, {"mae": 400})
    with fake_model(recipe) as model:
        cost = training_cost(model, shape, False, with_prefix=False)
    llm = outline_llm(published_config(published), torch.bfloat16, None)
    embeddings = torch.zeros(2, 500, llm.config.hidden_size, dtype=torch.bfloat16, device="meta", requires_grad=True)
    mask = torch.ones(1, 1, 500, 500, dtype=torch.bool, device="meta")  # transformers makes none without values
    with FlopCounterMode(display=False) as counter:
        output = llm.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
        output.last_hidden_state.sum().backward()
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.drill
def test_a_deep_llm_is_computed_from_few_of_its_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published_config("Llama-3.2-1B").save_pretrained(tmp_path)
    recipe = read_recipe("finetune", [f"llm.path={tmp_path}", "llm.bits=16", "init.projector=null"])
    shape = BatchShape(2, 300, 40, 30, dict.fromkeys(recipe.streams, 40))
    with fake_model(recipe) as model:
        for checkpointing in (False, True):
            quick = training_cost(model, shape, checkpointing, with_prefix=False)
            with monkeypatch.context() as patch:
                patch.setattr("signllava_cli.model.step_cost.FEW_LAYERS", (2, 1000))
                whole = training_cost(model, shape, checkpointing, with_prefix=False)
            for name, value in vars(whole).items():
                assert getattr(quick, name) == pytest.approx(value, rel=0.02), name


def test_the_kv_cache_of_a_prompt_holds_keys_and_values_of_all_layers(tmp_path: Path) -> None:
    published_config("Llama-3-8B").save_pretrained(tmp_path)
    recipe = read_recipe("pretrain", [f"llm.path={tmp_path}"])
    with fake_model(recipe) as model:
        cost = prefill_cost(model, BatchShape(3, 200, 40, 0, dict.fromkeys(recipe.streams, 30)))
    assert cost.kv == 3 * 200 * 32 * 2 * 8 * 128 * 2  # clips, tokens, layers, keys and values, heads, width, bytes
    assert cost.shares_prompts


@pytest.mark.parametrize("stream", ["{width: 64}", "{width: 64, stack: 4}", "{width: 64, conv: {layers: 2}}"])
def test_a_fake_batch_has_the_shapes_of_a_real_one(stream: str) -> None:
    recipe = read_recipe("toy/tiny_pretrain", [f"streams={{mae: {stream}}}"])
    inputs = projector_inputs(recipe.streams)
    frames = torch.zeros(5 * inputs["mae"].frames_per_embedding, 64).numpy().astype("float16")
    prompt = Prompt(before=(1,) * 7, after=(2,) * 4)
    example = Example("a/b", {"mae": frames}, {"mae": 5}, (), prompt, (3,) * 3, Truncation())
    for omit_prefix in (False, True):
        real = collate_examples([example] * 2, recipe.streams, 0, "right", omit_prefix)
        shape = BatchShape(2, example.seq_len - 1, 7, 3, {"mae": 5})  # the last answer token is no input
        fake = fake_batch(shape, inputs, omit_prefix)
        assert fake.input_ids.shape == real.input_ids.shape
        assert fake.targets.shape == fake.logit_indices.shape == real.targets.shape
        assert fake.prefix_len == real.prefix_len
        for name, values in vars(real.streams["mae"]).items():
            others = getattr(fake.streams["mae"], name)
            if isinstance(values, Tensor):
                values, others = (values,), (others,)
            assert [each.shape for each in others] == [each.shape for each in values], name
            assert [each.dtype for each in others] == [each.dtype for each in values], name
