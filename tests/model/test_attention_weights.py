"""The attention of an answer, against the definition and against what transformers returns for each architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, write_family
from family_checks import family_recipe, make_examples
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.errors import UserError
from signllava_cli.model.attention_weights import answer_attention
from signllava_cli.model.llm_parts import decoder_layers
from signllava_cli.model.loading import ModelBundle, load_model_bundle

pytestmark = pytest.mark.command
FolderOf = Callable[[str], Path]
TYPICAL = ["gemma2", "gpt_oss", "deepseek_v3"]  # soft caps and windows; sinks; values narrower than keys
WITHOUT = {"gemma3n", "gemma4_per_layer"}  # refused when they are loaded
# Their classes do not call the attention functions of transformers, or have no attention.
UNREADABLE = {"mamba2", "bloom", "falcon", "gptj", "stablelm", "nemotron"}


@pytest.fixture
def folder_of(made_once: Callable[[str, Callable[[Path], object]], Path]) -> FolderOf:
    """The folder of a family, which is written once for all tests."""
    return lambda name: made_once(f"family_{name}", lambda folder: write_family(name, folder))


def open_clip(folder: Path, *settings: str) -> tuple[ModelBundle, Batch]:
    """The model of a folder, and a clip with its answer."""
    recipe = family_recipe(folder, *settings)
    bundle = load_model_bundle(recipe, torch.device("cpu"))
    bundle.model.eval()
    example = make_examples(bundle, recipe, with_answer=True)[1]
    return bundle, collate_examples([example], recipe.streams, bundle.pad_id, "right")


def test_the_attention_is_the_softmax_of_queries_and_keys(tiny_llm: Path) -> None:
    """Computed by hand for the last layer of the tiny LLM: projections, rotation, mask, softmax."""
    bundle, batch = open_clip(tiny_llm)
    llm: Any = bundle.model.llm
    embeddings = bundle.model.embed(batch)
    number = len(decoder_layers(llm)) - 1
    last: Any = decoder_layers(llm)[number]
    attention = last.self_attn
    with torch.no_grad():
        states = llm.model(inputs_embeds=embeddings, output_hidden_states=True).hidden_states[number]
        states = last.input_layernorm(states)  # (1, L, hidden)
        length, width = states.shape[1], attention.head_dim
        query, key = (
            project(states).view(1, length, -1, width).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *llm.model.rotary_emb(states, torch.arange(length)[None]))
        expected = torch.zeros(query.shape[1], len(batch.targets), length)
        for head in range(query.shape[1]):
            for row, position in enumerate(batch.logit_indices.tolist()):
                keys = key[0, head * key.shape[1] // query.shape[1], : position + 1]
                expected[head, row, : position + 1] = (keys @ query[0, head, position] / width**0.5).softmax(0)
    weights = answer_attention(bundle.model, batch, [number])
    torch.testing.assert_close(weights, expected.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        answer_attention(bundle.model, batch, [number], [1]), expected[1], atol=1e-5, rtol=1e-4
    )
    both = answer_attention(bundle.model, batch)
    assert both.shape == weights.shape
    assert not torch.allclose(both, weights, atol=1e-3)
    torch.testing.assert_close(both.sum(1), torch.ones(len(both)))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in TYPICAL else [pytest.mark.drill])
        for name in FAMILIES
        if name not in WITHOUT
    ],
)
def test_the_attention_is_that_of_the_class(name: str, folder_of: FolderOf) -> None:
    """With transformers' own attentions of all positions, or a line that says that it cannot be read."""
    bundle, batch = open_clip(folder_of(name))
    llm: Any = bundle.model.llm
    embeddings = bundle.model.embed(batch)
    implementation = llm.config._attn_implementation
    if name in UNREADABLE:
        with pytest.raises(UserError, match="cannot be read"):
            answer_attention(bundle.model, batch)
        assert llm.config._attn_implementation == implementation
    else:
        weights = answer_attention(bundle.model, batch)
        assert llm.config._attn_implementation == implementation
        llm.set_attn_implementation("eager")
        with torch.no_grad():
            output = bundle.model.llm_forward.decoder(
                inputs_embeds=embeddings, use_cache=False, output_attentions=True
            )
        layers = [layer for layer in output.attentions if layer is not None]
        expected = torch.stack([layer[0][:, batch.logit_indices].mean(0) for layer in layers]).mean(0)
        torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-3)


def test_an_unknown_layer_or_head_is_named(folder_of: FolderOf) -> None:
    bundle, batch = open_clip(folder_of("gemma2"))
    with pytest.raises(UserError, match=r"no attention in layer 7; the layers with attention are 0, 1\."):
        answer_attention(bundle.model, batch, [0, 7])
    with pytest.raises(UserError, match=r"layer 0 has no head 4; its heads are 0 to 3\."):
        answer_attention(bundle.model, batch, heads=[4])
