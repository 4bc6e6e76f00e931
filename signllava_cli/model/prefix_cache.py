"""The constant text before the streams: its keys and values, computed once instead of in every sequence.

While the LLM is frozen, the keys and values of text that stands at the start of every sequence never change, and no
gradient flows into it. They are laid before those of the sequence inside each layer's attention: the same sums as
without, less the work. A prefix, unlike a KV cache, survives the recomputation of gradient checkpointing.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from signllava_cli.model.attention import ATTENTION

PROBE_TOKENS = 8  # positions behind the prefix that are compared with and without it
TOLERANCE = 0.05  # of their spread: bfloat16 rounds the same sums in another order


@dataclass
class PrefixCache:
    """Keys and values (1, heads, P, head width) of the P positions of the constant text, layer by layer."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """P, the number of positions."""
        return int(self.keys[0].shape[2])

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer, with the prefix's own before them: P + L."""
        size = (len(key), -1, -1, -1)
        keys, values = self.keys[layer].expand(size), self.values[layer].expand(size)
        return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)

    def arguments(self, embeddings: Tensor) -> dict[str, Any]:
        """What a decoder is called with for `embeddings` (B, L, hidden) to stand behind this prefix."""
        last = self.length + embeddings.shape[1]
        indices = torch.arange(self.length, last, device=embeddings.device)
        seen = torch.arange(last, device=embeddings.device) <= indices[:, None]
        return {"position_ids": indices[None], "prefix": self, "prefix_mask": seen[None, None]}


class _PrefixRecorder(PrefixCache):
    """A prefix in the making: it takes every layer's keys and values, and lays nothing before them."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer], self.values[layer] = key, value
        return key, value


def _has_full_attention(config: Any) -> bool:
    """Whether every layer of the LLM attends to all positions before it, however long the sequence."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    bounds = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size")]
    return kinds == {"full_attention"} and bounds == [None, None]


@torch.no_grad()
def build_prefix_cache(llm: Any, decoder: nn.Module, ids: Tensor) -> PrefixCache | None:
    """The prefix of the constant text `ids` (P,), or None where this LLM does not read the same with it as without.

    Layers that do not see everything before them take no prefix; whatever else might make a difference is not guessed
    but tried.
    """
    before = llm.config._attn_implementation
    if before not in ("sdpa", ATTENTION) or not _has_full_attention(llm.config.get_text_config()):
        return None
    llm.set_attn_implementation(ATTENTION)
    text = llm.get_input_embeddings()(ids[None])
    recorded = _PrefixRecorder()
    decoder(inputs_embeds=text, use_cache=False, prefix=recorded)
    prefix = PrefixCache(recorded.keys, recorded.values)
    if len(prefix.keys) == llm.config.get_text_config().num_hidden_layers:
        following = text[:, :PROBE_TOKENS]
        whole = decoder(inputs_embeds=torch.cat([text, following], dim=1), use_cache=False).last_hidden_state
        behind = decoder(inputs_embeds=following, use_cache=False, **prefix.arguments(following)).last_hidden_state
        expected = whole[:, len(ids) :].float()
        if (behind.float() - expected).abs().max() <= TOLERANCE * expected.std():
            return prefix
    llm.set_attn_implementation(before)
    return None
