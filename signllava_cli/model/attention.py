"""The attention function that is registered with transformers: sdpa, with an optional prefix cache or KV cache.

transformers passes a registered attention function every keyword argument of the decoder. `prefix` has the keys and
values of the constant text (prefix_cache.py), `kv_cache` those of all tokens before the next one in decoding
(kv_cache.py). Without either, the function is sdpa.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, AttentionMaskInterface, AutoConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from signllava_cli.console import info
from signllava_cli.recipe import LLM

ATTENTION = "sdpa_with_prefix"


class PrefixKV(Protocol):
    """The interface of a prefix cache (prefix_cache.py)."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer with those of P prefix tokens before them: P + L."""


class DecodingKV(Protocol):
    """The interface of a KV cache (kv_cache.py)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """The attention (R, 1, heads, head width) of the next token in each of R rows; stores its key and value."""


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: PrefixKV | None = None,
    prefix_mask: Tensor | None = None,
    kv_cache: DecodingKV | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer: from queries (B, heads, L, head width) to (B, L, heads, head width)."""
    if kv_cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        return kv_cache.attend(layer, query, key, value, kwargs.get("scaling")), None
    if prefix is not None:
        key, value = _prepend_kv(module, prefix, key, value)
    mask = attention_mask if prefix_mask is None else prefix_mask
    attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    return attended


@torch.compiler.disable
def _prepend_kv(module: nn.Module, prefix: PrefixKV, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """`prefix.prepend_kv` for the layer of this attention module.

    Not compiled: the layer's index would be a constant of the graph, so each layer would be compiled separately.
    """
    return prefix.prepend_kv(int(module.layer_idx), key, value)  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _attention_forward)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def supported_attention(config: LLM, location: str, options: dict[str, Any]) -> str:
    """The attention kernel for the LLM at `location`: that of the recipe, or eager if the class lacks sdpa."""
    llm_config = AutoConfig.from_pretrained(location, revision=config.revision, **options)
    llm_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(llm_config), None)
    if config.attn_implementation != "sdpa" or llm_class is None or llm_class._supports_sdpa:
        return config.attn_implementation
    info(f"llm.attn_implementation: {llm_class.__name__} has no sdpa; eager is used")
    return "eager"
