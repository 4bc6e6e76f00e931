"""The attention function that is registered with transformers: sdpa, with an optional prefix cache or KV cache.

transformers passes a registered attention function every keyword argument of the decoder. `prefix` has the keys and
values of the constant text (prefix_cache.py). In training each attention module has its own, in `PREFIX_KEY` and
`PREFIX_VALUE`, so that all layers are the same to torch.compile. `kv_cache` has those of all tokens before the next
one in decoding (kv_cache.py). Without any of these, the function is sdpa, with the windows, soft caps and sinks that
a layer asks for.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from signllava_cli.console import info
from signllava_cli.recipe import LLM

ATTENTION = "attention_with_prefix"
PREFIX_KEY, PREFIX_VALUE = "prefix_key", "prefix_value"  # attributes of an attention module


class PrefixKV(Protocol):
    """The interface of a prefix cache (prefix_cache.py)."""

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """`key` and `value` (B, heads, L, head width) of a layer with those of P prefix tokens before them: P + L."""


@dataclass(frozen=True)
class Scores:
    """How a layer makes weights of its scores, in the words of transformers.

    Scores are multiplied by `scaling`, limited to +-`softcap` and restricted to the last `sliding_window` tokens. The
    softmax has a further score `s_aux` (heads,), whose weight is dropped (attention sink).
    """

    scaling: float
    softcap: float | None
    sliding_window: int | None
    s_aux: Tensor | None

    @classmethod
    def of_layer(cls, query: Tensor, arguments: dict[str, Any]) -> "Scores":
        """From the keyword arguments that a layer gives to its attention function."""
        softcap, sliding_window, s_aux = (arguments.get(name) for name in ("softcap", "sliding_window", "s_aux"))
        return cls(arguments.get("scaling") or query.shape[-1] ** -0.5, softcap, sliding_window, s_aux)

    @property
    def is_plain(self) -> bool:
        """Whether sdpa can compute them, given a mask."""
        return self.softcap is None and self.s_aux is None

    def weights(self, products: Tensor, is_visible: Tensor) -> Tensor:
        """The weights, float32 (B, heads, L, K), given the products of queries and keys of that shape."""
        scores = products.float() * self.scaling
        if self.softcap is not None:
            scores = (scores / self.softcap).tanh() * self.softcap
        scores = scores.masked_fill(~is_visible, float("-inf"))
        if self.s_aux is None:
            return scores.softmax(-1)
        sinks = self.s_aux.float().view(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)  # (B, heads, L, 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


class DecodingKV(Protocol):
    """The interface of a KV cache (kv_cache.py)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """The attention (R, 1, heads, value width) of the next token in each of R rows; stores its key and value."""


class WeightsRecorder(Protocol):
    """The interface of a recorder of attention weights (attention_weights.py)."""

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scores: Scores) -> None:
        """Record weights of a layer; all arguments as its attention function gets them. A mask of None is causal."""


@dataclass
class MaskCheck:
    """Compares the mask of each layer with the one that `visible_keys` gives for its window.

    `modules`: by layer, the attention modules that were called.
    """

    modules: dict[int, nn.Module] = field(default_factory=dict)
    is_equal: bool = True

    def see(
        self, module: nn.Module, mask: Tensor | None, window: int | None, length: int, device: torch.device
    ) -> None:
        """Compare the `mask` of a module: (1, 1, L, L), bool or added to the scores; None is causal."""
        positions = torch.arange(length, device=device)
        expected = visible_keys(positions, positions, window)  # (L, L)
        if mask is None:
            seen = visible_keys(positions, positions, None)
        else:
            seen = unmasked_keys(mask)[0, 0]
        self.modules[int(module.layer_idx)] = module  # type: ignore[arg-type]
        self.is_equal = self.is_equal and torch.equal(seen, expected)


def visible_keys(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys a query sees, bool (..., Q, K), by their positions (..., Q) and (..., K).

    It sees its own and those before it, if they are among the last `window` positions (None: all).
    """
    distances = queries[..., :, None] - keys[..., None, :]
    return distances >= 0 if window is None else (distances >= 0) & (distances < window)


def unmasked_keys(mask: Tensor) -> Tensor:
    """Which keys a query sees, bool, by a mask that is bool, or is added to the scores."""
    return mask if mask.dtype == torch.bool else mask == 0


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: PrefixKV | None = None,
    prefix_mask: Tensor | None = None,
    kv_cache: DecodingKV | None = None,
    mask_check: MaskCheck | None = None,
    recorder: WeightsRecorder | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer: from queries (B, heads, L, head width) to (B, L, heads, value width)."""
    scores = Scores.of_layer(query, kwargs)
    if kv_cache is not None:
        return kv_cache.attend(int(module.layer_idx), query, key, value, scores), None  # type: ignore[arg-type]
    if mask_check is not None:
        mask_check.see(module, attention_mask, scores.sliding_window, query.shape[2], query.device)
    if recorder is not None:
        recorder.record(int(module.layer_idx), query, key, attention_mask, scores)  # type: ignore[arg-type]
    if prefix is not None:
        key, value = prefix.prepend_kv(int(module.layer_idx), key, value)  # type: ignore[arg-type]
    elif prefix_mask is not None:
        key, value = prepend(getattr(module, PREFIX_KEY), key), prepend(getattr(module, PREFIX_VALUE), value)
    mask = attention_mask
    if prefix_mask is not None:
        if _is_causal(scores, key.shape[2]) and _has_flash_attention(query, value):
            return _flash_attention(query, key, value, scores.scaling), None
        mask = prefix_mask if scores.sliding_window is None else _limit(prefix_mask, scores.sliding_window)
    if scores.is_plain:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return attended
    return _explicit_attention(query, key, value, mask, scores), None


def _is_causal(scores: Scores, num_keys: int) -> bool:
    """Whether each query sees all keys before its own, with scores that sdpa can compute."""
    return scores.is_plain and (scores.sliding_window is None or scores.sliding_window >= num_keys)


def _has_flash_attention(query: Tensor, value: Tensor) -> bool:
    """Whether flash attention can compute this: on a GPU, in 16 bits, and widths as torch's sdpa requires."""
    width = query.shape[-1]
    is_supported = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and width == value.shape[-1]
    return is_supported and width % 8 == 0 and width <= 256 and torch.backends.cuda.flash_sdp_enabled()


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention (B, L, heads, value width) where the last of L queries sees all of K >= L keys.

    sdpa has no argument for this and would need a mask, which only slower kernels take. The kernel that it calls has
    it, and shares key-value heads without copies (as torch.nn.attention.bias.causal_lower_right uses it). The
    self-test of the prefix cache compares it with sdpa.
    """
    attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, is_causal=True, scale=scaling
    )[0]
    return attended.transpose(1, 2)


def _explicit_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
    """Attention (B, L, heads, value width) with scores that sdpa cannot compute; a mask of None is causal."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)  # (B, heads, K, _)
    if mask is None:
        positions = torch.arange(query.shape[2], device=query.device)
        mask = visible_keys(positions, positions, None)
    weights = scores.weights(query @ key.mT, unmasked_keys(mask)).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous()


def _limit(mask: Tensor, window: int) -> Tensor:
    """A causal `mask` (..., L, P + L) of the last L positions, limited to a window."""
    num_queries, num_keys = mask.shape[-2:]
    keys = torch.arange(num_keys, device=mask.device)
    return mask & visible_keys(keys[num_keys - num_queries :], keys, window)


def prepend(prefix: Tensor, sequence: Tensor) -> Tensor:
    """`prefix` (1, heads, P, width) before each `sequence` (B, heads, L, width): (B, heads, P + L, width)."""
    return torch.cat([prefix.expand(len(sequence), -1, -1, -1), sequence], dim=2)


AttentionInterface.register(ATTENTION, _attention_forward)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def supported_attention(config: LLM, llm_config: Any) -> str:
    """The attention kernel for the LLM of a transformers config: that of the recipe, or eager if it lacks sdpa."""
    llm_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(llm_config), None)
    if config.attn_implementation != "sdpa" or llm_class is None or llm_class._supports_sdpa:
        return config.attn_implementation
    info(f"llm.attn_implementation: {llm_class.__name__} has no sdpa; eager is used")
    return "eager"
