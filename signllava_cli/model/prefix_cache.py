"""The prefix cache: the keys and values of the constant text before the streams, computed once.

While the LLM is frozen, the keys and values of the text at the start of every sequence do not change, and no gradient
flows into them. Each layer's attention prepends them to those of the sequence: the same results with less
computation. Unlike the caches of transformers, a prefix works with gradient checkpointing.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from signllava_cli.model.attention import ATTENTION, MaskCheck
from signllava_cli.model.llm_forward import LLMForward, nearly_equal

PROBE_TOKENS = 8  # tokens after the prefix whose hidden states are compared with and without the cache
TOLERANCE = 0.05  # relative RMS: 4 bits and 8 bits reach 0.013, values of another token 0.25


@dataclass
class PrefixCache:
    """Keys and values (1, heads, P, head width) of the P tokens of the constant text, by layer."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """P, the number of tokens."""
        return int(self.keys[0].shape[2])

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer with those of the prefix before them: P + L."""
        size = (len(key), -1, -1, -1)
        prefix_key, prefix_value = self.keys[layer].expand(size), self.values[layer].expand(size)  # (B, heads, P, _)
        return torch.cat([prefix_key, key], dim=2), torch.cat([prefix_value, value], dim=2)

    def arguments(self, embeddings: Tensor) -> dict[str, Any]:
        """The keyword arguments of a decoder whose input `embeddings` (B, L, hidden) follow this prefix."""
        end = self.length + embeddings.shape[1]
        position_ids = torch.arange(self.length, end, device=embeddings.device)  # (L,)
        mask = torch.arange(end, device=embeddings.device) <= position_ids[:, None]  # (L, P + L), causal
        return {"position_ids": position_ids[None], "prefix": self, "prefix_mask": mask[None, None]}


class _PrefixRecorder(PrefixCache):
    """Records every layer's keys and values, and prepends none."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer], self.values[layer] = key, value
        return key, value


def record_prefix(decoder: Any, embeddings: Tensor) -> PrefixCache:
    """The prefix cache of the tokens with these `embeddings` (1, P, hidden); the LLM must use `ATTENTION`."""
    recorder = _PrefixRecorder()
    decoder(inputs_embeds=embeddings, use_cache=False, prefix=recorder)
    return PrefixCache(recorder.keys, recorder.values)


def longest_window(config: Any) -> int:
    """The most tokens to which a layer with limited attention attends, by the config of the LLM; 0 without one."""
    sizes = [getattr(config.get_text_config(), key, None) for key in ("sliding_window", "attention_chunk_size")]
    return max(size or 0 for size in sizes)


@torch.no_grad()
def build_prefix_cache(llm: Any, forward: LLMForward, ids: Tensor, max_seq_len: int) -> PrefixCache | None:
    """The prefix cache of the constant text `ids` (P,), or None if this LLM gives other hidden states with it.

    Nothing in a config says whether the attention of an LLM is what it says, so this is tested: every layer's mask on
    a sequence longer than the longest window (up to `max_seq_len`), and its hidden states with and without the cache.
    """
    original_attention = llm.config._attn_implementation
    if original_attention not in ("sdpa", ATTENTION) and llm._supports_sdpa:
        return None
    decoder = forward.decoder
    num_probed = max(0, min(max_seq_len - len(ids), longest_window(llm.config))) + PROBE_TOKENS
    probe_ids = torch.arange(num_probed, device=ids.device) % forward.num_tokens
    text, probe = forward.embed(ids[None]), forward.embed(probe_ids[None])  # (1, P, hidden), (1, N, hidden)
    full = torch.cat([text, probe], dim=1)
    expected = decoder(inputs_embeds=full, use_cache=False).last_hidden_state[:, len(ids) :]
    llm.set_attn_implementation(ATTENTION)
    check, recorder = MaskCheck(), _PrefixRecorder()
    decoder(inputs_embeds=full, use_cache=False, mask_check=check)
    if check.is_equal and len(check.layers) == llm.config.get_text_config().num_hidden_layers:
        decoder(inputs_embeds=text, use_cache=False, prefix=recorder)
        prefix = PrefixCache(recorder.keys, recorder.values)
        hidden = decoder(inputs_embeds=probe, use_cache=False, **prefix.arguments(probe)).last_hidden_state
        if nearly_equal(hidden, expected, TOLERANCE):
            return prefix
    llm.set_attn_implementation(original_attention)
    return None
