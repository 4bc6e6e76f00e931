"""The attention that our LLMs run: transformers' sdpa, told what stands before the positions at hand.

transformers lets a package register an attention of its own, and hands it whatever keyword the decoder is called
with. `prefix` is the constant text of a batch in training (prefix.py); `memory` is what the hypotheses of a batch in
decoding have behind them (memory.py). Without either it is sdpa.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from signllava_cli.model.memory import Memory
    from signllava_cli.model.prefix import Prefix

ATTENTION = "sdpa_after_prefix"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: "Prefix | None" = None,
    prefix_mask: Tensor | None = None,
    memory: "Memory | None" = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer: queries (B, heads, L, head width) in, (B, L, heads, head width) out."""
    if memory is not None:
        return memory.attend(int(module.layer_idx), query, key, value, others.get("scaling")), None  # type: ignore[arg-type]
    if prefix is not None:
        key, value = _laid_before(module, prefix, key, value)
    mask = attention_mask if prefix_mask is None else prefix_mask
    attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **others)
    return attended


@torch.compiler.disable
def _laid_before(module: nn.Module, prefix: "Prefix", key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """`prefix.lay_before` for the layer of this attention.

    Not compiled: a compiled layer would know its own number, and every layer would want a compilation of its own.
    """
    return prefix.lay_before(int(module.layer_idx), key, value)  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
