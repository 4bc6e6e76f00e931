"""The attention implementation that is registered with transformers: sdpa, with a prefix or a KV cache of ours.

transformers lets a package register an attention function, and passes it every keyword argument that the decoder is
called with. `prefix` holds the keys and values of the constant text in training (prefix_cache.py); `kv_cache` those of
the tokens before the new one in decoding (kv_cache.py). Without either it is sdpa.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_with_prefix"


class PrefixKV(Protocol):
    """What attention asks of a prefix cache (prefix_cache.py)."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer, those of the P prefix tokens before them: P + L."""


class DecodingKV(Protocol):
    """What attention asks of a KV cache (kv_cache.py)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """The attention (R, 1, heads, head width) of one new token in each of R rows; its key and value are stored."""


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: PrefixKV | None = None,
    prefix_mask: Tensor | None = None,
    kv_cache: DecodingKV | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer: queries (B, heads, L, head width) in, (B, L, heads, head width) out."""
    if kv_cache is not None:
        return kv_cache.attend(int(module.layer_idx), query, key, value, others.get("scaling")), None  # type: ignore[arg-type]
    if prefix is not None:
        key, value = _prepend_kv(module, prefix, key, value)
    mask = attention_mask if prefix_mask is None else prefix_mask
    attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **others)
    return attended


@torch.compiler.disable
def _prepend_kv(module: nn.Module, prefix: PrefixKV, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """`prefix.prepend_kv` for the layer of this attention module.

    Not compiled: the layer's index would become a constant of the graph, and each layer would be compiled separately.
    """
    return prefix.prepend_kv(int(module.layer_idx), key, value)  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _attention_forward)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
