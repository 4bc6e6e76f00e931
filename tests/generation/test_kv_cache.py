"""Our KV cache: with the shapes that a GPU needs, with the outliers of real LLMs, with the weights of training."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from slow_reference import gold_examples, open_run
from torch import Tensor

from signllava_cli.generation import decoding
from signllava_cli.generation.decoding import SharedPrefixDecoder, decode_all, open_decoder
from signllava_cli.model import kv_cache
from signllava_cli.model.decoding_weights import dequantize_layers, quantized_weights
from signllava_cli.model.kv_cache import require_equal_decoding
from signllava_cli.model.llm_forward import divide_forward, relative_difference
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.model.prefix_cache import CacheError, PrefixCache, build_prefix_cache
from signllava_cli.recipe import read_recipe


class StepsOfFewShapes:
    """Stands for `CudaGraphs`, where there is no CUDA: runs the step itself, and notes its shapes."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.shapes: set[tuple[int, int]] = set()

    def clear(self) -> None:
        """There is nothing to forget."""

    def run(self, ids: Tensor, num_keys: int) -> Tensor:
        self.shapes.add((len(ids), num_keys))
        logits: Tensor = self.step(ids, num_keys)
        return logits


@pytest.mark.parametrize("settings", [["generate.num_beams=3"], ["generate.num_beams=1"]])
def test_padding_to_few_shapes_does_not_change_hypotheses(
    run: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips end at different steps and others take their rows, as in a long job."""
    recipe, bundle, split = open_run(run, "generate.max_new_tokens=40", *settings)
    examples = gold_examples(recipe, bundle, split, 20)
    expected = decode_all(open_decoder(bundle, recipe), examples, 7)

    def pad_rows(num_clips: int, device: torch.device) -> int:
        return kv_cache_padded_rows(num_clips, torch.device("cuda"))

    kv_cache_padded_rows = kv_cache.padded_rows
    monkeypatch.setattr(kv_cache, "padded_rows", pad_rows)
    monkeypatch.setattr(decoding, "padded_rows", pad_rows)
    decoder = open_decoder(bundle, recipe)
    assert isinstance(decoder, SharedPrefixDecoder)
    steps = StepsOfFewShapes(decoder._next_logits)
    decoder._graphs = steps  # type: ignore[assignment]
    hypotheses = decode_all(decoder, examples, 7)
    assert [hypothesis.text for hypothesis in hypotheses] == [hypothesis.text for hypothesis in expected]
    assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(
        [hypothesis.score for hypothesis in expected], abs=1e-4
    )
    assert {rows for rows, _ in steps.shapes} <= {1, 2, 3, 4, 6, 8}
    assert len(steps.shapes) < 12


@pytest.mark.drill  # compiles for a minute
def test_compiled_layers_give_the_same_hypotheses(run: Path) -> None:
    hypotheses = []
    for compiles in ("false", "true"):
        recipe, bundle, split = open_run(run, f"generate.torch_compile={compiles}")
        examples = gold_examples(recipe, bundle, split, 6)
        hypotheses.append(decode_all(open_decoder(bundle, recipe), examples, 3))
    assert [hypothesis.text for hypothesis in hypotheses[0]] == [hypothesis.text for hypothesis in hypotheses[1]]


def test_weights_of_4_bits_are_converted_to_the_values_that_are_multiplied(
    settings: list[str],
) -> None:
    """What a GPU with enough memory does before decoding."""
    recipe = read_recipe("toy/tiny_finetune", [*settings, "init.projector=null", "llm.bits=4", "llm.dtype=bfloat16"])
    bundle = load_model_bundle(recipe, torch.device("cpu"))
    llm = bundle.model.llm
    layer = llm.base_model.model.model.layers[0].mlp.down_proj.base_layer
    inputs = torch.randn(3, layer.in_features, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    expected = layer(inputs)
    dequantize_layers(llm, torch.bfloat16)
    converted = llm.base_model.model.model.layers[0].mlp.down_proj.base_layer
    assert type(converted) is torch.nn.Linear
    assert not quantized_weights(llm)
    assert relative_difference(converted(inputs), expected) < 0.004  # the rounding of bfloat16


def llm_with_outliers(dtype: torch.dtype) -> Any:
    """A Llama whose hidden states have four loud channels, and a first position with large ones, as real LLMs have."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_hidden_layers=8,
        intermediate_size=512,
        vocab_size=500,
        num_attention_heads=8,
        num_key_value_heads=2,
        initializer_range=0.05,
    )
    llm = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        llm.model.layers[1].mlp.down_proj.weight[[3, 77, 130, 201]] *= 30
        llm.model.embed_tokens.weight[0] *= 20  # the token of the first position
    return llm.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_outliers_in_hidden_states_are_no_reason_for_the_slow_decoder(dtype: torch.dtype) -> None:
    """And a cache with values of other tokens is still refused."""
    llm = llm_with_outliers(dtype)
    forward = divide_forward(llm)
    with torch.no_grad():
        hidden = llm.model(torch.arange(40)[None], output_hidden_states=True).hidden_states[-2][0].float()
    assert hidden.abs().max() > 20 * hidden.abs().median()  # there are outliers
    prefix = build_prefix_cache(llm, forward, torch.arange(20), max_seq_len=256)
    require_equal_decoding(forward, prefix, 64)

    class BrokenCache(PrefixCache):
        """Its values are those of other tokens when a prompt is decoded, not in the reference."""

        def arguments(self, embeddings: Tensor) -> dict[str, Any]:
            return prefix.arguments(embeddings)

    rolled = {layer: values.roll(1, dims=2) for layer, values in prefix.values.items()}
    broken = BrokenCache(prefix.keys, rolled, tolerance=prefix.tolerance)
    with pytest.raises(CacheError, match=r"with the KV cache, hidden states differ by 0\.\d+, relative, at most 0.05"):
        require_equal_decoding(forward, broken, 64)
