"""The prefix cache: the keys and values of the constant text before the streams, computed once.

While the LLM is frozen, the keys and values of the text at the start of every sequence do not change, and no gradient
flows into them. Each layer's attention prepends them to those of the sequence: the same results with less
computation. Unlike the caches of transformers, a prefix works with gradient checkpointing.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from signllava_cli.model.attention import ATTENTION, PREFIX_KEY, PREFIX_VALUE, MaskCheck, prepend
from signllava_cli.model.llm_forward import LLMForward, relative_difference

PROBE_TOKENS = 8  # tokens after the prefix whose hidden states are compared with and without the cache
# Relative RMS of hidden states. In small LLMs 4 bits and 8 bits reach 0.013, values of another token 0.25. In an LLM
# of 8B random weights rounding alone gives 0.04 in bfloat16: the tolerance grows with the noise of the LLM.
TOLERANCE, MAX_TOLERANCE, NOISE_FACTOR = 0.05, 0.2, 1.5


@dataclass
class PrefixCache:
    """Keys and values (1, heads, P, head width) of the P tokens of the constant text, by layer.

    `modules`: by layer, the attention modules of the LLM. `tolerance`: the relative difference of hidden states that
    rounding may cause in this LLM.
    """

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    modules: dict[int, nn.Module] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    is_attached: bool = False

    @property
    def length(self) -> int:
        """P, the number of tokens."""
        return int(self.keys[0].shape[2])

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer with those of the prefix before them: P + L."""
        return prepend(self.keys[layer], key), prepend(self.values[layer], value)

    def attach(self) -> None:
        """Give each attention module its keys and values, for training; another attached cache is replaced.

        Then no layer looks them up by its number, which torch.compile would make a constant of the layer's graph.
        """
        for layer, module in self.modules.items():
            setattr(module, PREFIX_KEY, self.keys[layer])
            setattr(module, PREFIX_VALUE, self.values[layer])
        self.is_attached = True

    def arguments(self, embeddings: Tensor) -> dict[str, Any]:
        """The keyword arguments of a decoder whose input `embeddings` (B, L, hidden) follow this prefix."""
        end = self.length + embeddings.shape[1]
        position_ids = torch.arange(self.length, end, device=embeddings.device)  # (L,)
        mask = torch.arange(end, device=embeddings.device) <= position_ids.view(1, 1, -1, 1)  # causal, (1, 1, L, P + L)
        arguments = {"position_ids": position_ids[None], "prefix_mask": mask}
        return arguments if self.is_attached else {**arguments, "prefix": self}


class _PrefixRecorder(PrefixCache):
    """Records every layer's keys and values, and prepends none."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer], self.values[layer] = key, value
        return key, value


def longest_window(config: Any) -> int:
    """The most tokens to which a layer with limited attention attends, by the config of the LLM; 0 without one."""
    sizes = [getattr(config.get_text_config(), key, None) for key in ("sliding_window", "attention_chunk_size")]
    return max(size or 0 for size in sizes)


class CacheError(Exception):
    """An LLM that gives other hidden states with our caches; the message is why, and what to do if anything."""


def require_equal(hidden: Tensor, expected: Tensor, tolerance: float, cache: str) -> None:
    """Check the relative difference of hidden states with and without a cache.

    Raises:
        CacheError: it is above the tolerance.
    """
    difference = relative_difference(hidden, expected)
    if not difference <= tolerance:  # NaN too
        raise CacheError(
            f"with the {cache}, hidden states differ by {difference:.2g}, relative, at most {tolerance:.2g}"
        )


def rounding_tolerance(forward: LLMForward, embeddings: Tensor, hidden: Tensor) -> float:
    """The tolerance for an LLM: at least `TOLERANCE`, and more if its hidden states change much by rounding alone.

    Their noise is how much `hidden` (1, L, hidden) changes when each of the input `embeddings` (1, L, hidden) is
    changed by as much as rounding to its dtype may do. Each layer adds such errors, so computing in another order
    changes more.
    """
    signs = torch.randint(0, 2, embeddings.shape, generator=torch.Generator().manual_seed(0)).to(embeddings) * 2 - 1
    disturbed = embeddings * (1 + signs * torch.finfo(embeddings.dtype).eps)
    noise = relative_difference(forward.decoder(inputs_embeds=disturbed, use_cache=False).last_hidden_state, hidden)
    return min(max(TOLERANCE, NOISE_FACTOR * noise), MAX_TOLERANCE)


@torch.no_grad()
def build_prefix_cache(llm: Any, forward: LLMForward, ids: Tensor, max_seq_len: int) -> PrefixCache:
    """The prefix cache of the constant text `ids` (P,).

    Nothing in a config says whether the attention of an LLM is what it says, so this is tested: every layer's mask on
    a sequence longer than the longest window (up to `max_seq_len`), and its hidden states with and without the cache.

    Raises:
        CacheError: this LLM gives other hidden states with it.
    """
    original_attention = llm.config._attn_implementation
    if original_attention not in ("sdpa", ATTENTION) and llm._supports_sdpa:
        raise CacheError(f"llm.attn_implementation is {original_attention}; set it to sdpa")
    decoder = forward.decoder
    num_probed = max(0, min(max_seq_len - len(ids), longest_window(llm.config))) + PROBE_TOKENS
    probe_ids = torch.arange(num_probed, device=ids.device) % forward.num_tokens
    text, probe = forward.embed(ids[None]), forward.embed(probe_ids[None])  # (1, P, hidden), (1, N, hidden)
    full = torch.cat([text, probe], dim=1)
    hidden_states = decoder(inputs_embeds=full, use_cache=False).last_hidden_state
    expected, tolerance = hidden_states[:, len(ids) :], rounding_tolerance(forward, full, hidden_states)
    llm.set_attn_implementation(ATTENTION)
    try:
        check, recorder = MaskCheck(), _PrefixRecorder()
        decoder(inputs_embeds=full, use_cache=False, mask_check=check)
        if not check.is_equal or len(check.modules) < llm.config.get_text_config().num_hidden_layers:
            raise CacheError(f"{type(llm).__name__} has layers without attention, or with attention of another kind")
        decoder(inputs_embeds=text, use_cache=False, prefix=recorder)
        prefix = PrefixCache(recorder.keys, recorder.values, check.modules, tolerance)
        hidden = decoder(inputs_embeds=probe, use_cache=False, **prefix.arguments(probe)).last_hidden_state
        require_equal(hidden, expected, tolerance, "prefix cache")
    except CacheError:
        llm.set_attn_implementation(original_attention)
        raise
    return prefix
