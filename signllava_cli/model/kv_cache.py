"""The KV cache of decoding: the keys and values of the tokens before the next one, for several hypotheses per clip.

The hypotheses of a clip (beams or samples) share its prompt. Its keys and values are stored once per clip, and each
layer reads them once for all hypotheses; the caches of transformers store and compute a prompt once per beam. Clips
are added and removed between steps, so a batch stays full when some of its clips finish.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from signllava_cli.model.attention import Scores, visible_keys
from signllava_cli.model.llm_forward import LLMForward, nearly_equal
from signllava_cli.model.prefix_cache import PROBE_TOKENS, TOLERANCE, PrefixCache

GROWTH_TOKENS = 16  # tokens by which the tensors of generated tokens grow

LayerKV = tuple[Tensor, Tensor]  # the keys and the values of one layer


class PrefillRecorder(PrefixCache):
    """A prefix cache that records every layer's keys and values of a batch, those of the prefix included."""

    def __init__(self, prefix: PrefixCache) -> None:
        super().__init__(prefix.keys, prefix.values)
        self.all_keys: list[Tensor] = []
        self.all_values: list[Tensor] = []

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """As PrefixCache; layers are called in order."""
        key, value = super().prepend_kv(layer, key, value)  # (B, heads, P + L, head width)
        self.all_keys.append(key)
        self.all_values.append(value)
        return key, value


@dataclass
class KVCache:
    """The keys and values of C clips, each with H = `num_hypotheses` hypotheses: row c * H + h is hypothesis h of
    clip c.

    `prompts`: for each layer, the keys and values (C, heads, L, head width) of the prompts; only the first
    `prompt_lengths` (C,) of the L tokens are the clip's. `tokens`: for each layer, the keys and values
    (C * H, heads, T, head width) of the generated tokens; only the first `lengths` (C,) of the T tokens are.
    """

    num_hypotheses: int
    prompts: list[LayerKV]
    prompt_lengths: Tensor
    tokens: list[LayerKV]
    lengths: Tensor

    @classmethod
    def from_prompts(cls, recorder: PrefillRecorder, lengths: Tensor, num_hypotheses: int) -> "KVCache":
        """The cache of C prompts of `lengths` (C,) tokens, the prefix included, without generated tokens."""
        prompts = list(zip(recorder.all_keys, recorder.all_values, strict=True))

        def empty(tensor: Tensor) -> Tensor:
            clips, heads, _, head_width = tensor.shape
            return tensor.new_zeros(clips * num_hypotheses, heads, GROWTH_TOKENS, head_width)  # (C * H, heads, T, _)

        tokens = [(empty(keys), empty(values)) for keys, values in prompts]
        return cls(num_hypotheses, prompts, lengths, tokens, torch.zeros_like(lengths))

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the decoder for the next token (C * H, 1, hidden) of each hypothesis."""
        num_tokens = int(self.lengths.max()) + 1
        if num_tokens > self.tokens[0][0].shape[2]:
            self.tokens = [
                (_pad_length(keys, GROWTH_TOKENS), _pad_length(values, GROWTH_TOKENS)) for keys, values in self.tokens
            ]
        self._is_visible: dict[int | None, Tensor] = {}  # by window
        self._rows = torch.arange(len(self.lengths) * self.num_hypotheses, device=self.lengths.device)
        self._indices, self._num_tokens = self._per_row(self.lengths), num_tokens  # of the next token, (C * H,)
        return {"position_ids": self._per_row(self.prompt_lengths + self.lengths)[:, None], "kv_cache": self}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """The attention (R, 1, heads, value width) of one token in each of R = C * H rows to all tokens before it.

        `query` (R, heads, 1, head width); `key` (R, key-value heads, 1, head width) and `value` (R, key-value heads,
        1, value width) are stored.
        """
        (prompt_keys, prompt_values), (token_keys, token_values) = self.prompts[layer], self.tokens[layer]
        token_keys[self._rows, :, self._indices] = key[:, :, 0]
        token_values[self._rows, :, self._indices] = value[:, :, 0]
        rows, heads, _, head_width = query.shape
        kv_heads, prompt_len = key.shape[1], prompt_keys.shape[2]
        query = query.view(rows, kv_heads, heads // kv_heads, head_width)
        token_keys, token_values = token_keys[:, :, : self._num_tokens], token_values[:, :, : self._num_tokens]
        prompt_products = self._by_row(self._by_clip(query) @ prompt_keys.mT)  # (R, kv_heads, groups, L)
        products = torch.cat([prompt_products, query @ token_keys.mT], dim=-1)  # (R, kv_heads, groups, L + T)
        weights = scores.weights(
            products.view(rows, heads, 1, -1), self._visible(prompt_len, scores.sliding_window)
        ).to(value.dtype)
        weights = weights.view(products.shape)
        from_prompts = self._by_row(self._by_clip(weights[..., :prompt_len]) @ prompt_values)
        attended = from_prompts + weights[..., prompt_len:] @ token_values  # (R, kv_heads, groups, value width)
        return attended.reshape(rows, 1, heads, value.shape[-1])

    def _visible(self, prompt_len: int, window: int | None) -> Tensor:
        """Which of the L = `prompt_len` and T stored tokens the next token sees, bool (C * H, 1, 1, L + T)."""
        if window not in self._is_visible:
            index = torch.arange(prompt_len, device=self.lengths.device).expand(len(self.lengths), -1)  # (C, L)
            lengths, last = self.prompt_lengths[:, None], (self.prompt_lengths + self.lengths)[:, None]  # (C, 1)
            tokens = lengths + torch.arange(self._num_tokens, device=self.lengths.device)  # (C, T), positions
            beyond = torch.full_like(index, torch.iinfo(index.dtype).max)  # not in the prompt of this clip
            keys = torch.cat([torch.where(index < lengths, index, beyond), tokens], dim=1)  # (C, L + T)
            is_visible = visible_keys(last, keys, window)  # (C, 1, L + T)
            self._is_visible[window] = self._per_row(is_visible)[:, None]
        return self._is_visible[window]

    def advance(self, parents: Tensor | None) -> None:
        """Count the token that every hypothesis has added; then hypothesis h of clip c continues `parents[c, h]`.

        `parents`: int64 (C, H), or None where every hypothesis continues itself.
        """
        self.lengths = self.lengths + 1
        if parents is not None:
            clips = torch.arange(len(parents), device=parents.device)[:, None]
            rows = (clips * self.num_hypotheses + parents).flatten()
            self.tokens = [(keys[rows], values[rows]) for keys, values in self.tokens]

    def keep(self, clips: Tensor) -> None:
        """Remove all clips but those of the indices `clips` (int64)."""
        rows = (
            clips[:, None] * self.num_hypotheses + torch.arange(self.num_hypotheses, device=clips.device)
        ).flatten()
        self.prompt_lengths, self.lengths = self.prompt_lengths[clips], self.lengths[clips]
        max_len = int(self.prompt_lengths.max())
        self.prompts = [(keys[clips, :, :max_len], values[clips, :, :max_len]) for keys, values in self.prompts]
        self.tokens = [(keys[rows], values[rows]) for keys, values in self.tokens]

    def join(self, other: "KVCache") -> None:
        """Append the clips of another cache."""
        self.prompts = _concatenate(self.prompts, other.prompts)
        self.tokens = _concatenate(self.tokens, other.tokens)
        self.prompt_lengths = torch.cat([self.prompt_lengths, other.prompt_lengths])
        self.lengths = torch.cat([self.lengths, other.lengths])

    def _per_row(self, per_clip: Tensor) -> Tensor:
        return per_clip.repeat_interleave(self.num_hypotheses, dim=0)

    def _by_clip(self, tensor: Tensor) -> Tensor:
        """(C * H, heads, groups, N) -> (C, heads, H * groups, N), for one matrix product per clip and head."""
        rows, heads, groups, size = tensor.shape
        clips = tensor.view(rows // self.num_hypotheses, self.num_hypotheses, heads, groups, size)
        return clips.transpose(1, 2).reshape(rows // self.num_hypotheses, heads, self.num_hypotheses * groups, size)

    def _by_row(self, tensor: Tensor) -> Tensor:
        """(C, heads, H * groups, N) -> (C * H, heads, groups, N): the inverse of `_by_clip`."""
        clips, heads, queries, size = tensor.shape
        groups = queries // self.num_hypotheses
        rows = tensor.view(clips, heads, self.num_hypotheses, groups, size).transpose(1, 2)
        return rows.reshape(clips * self.num_hypotheses, heads, groups, size)


def _pad_length(tensor: Tensor, count: int) -> Tensor:
    """(..., N, D) -> (..., N + count, D), with zeros."""
    return pad(tensor, (0, 0, 0, count))


def _concatenate(first: list[LayerKV], second: list[LayerKV]) -> list[LayerKV]:
    """Concatenates the rows of each layer; the shorter tensors are padded with zeros."""
    length = max(first[0][0].shape[2], second[0][0].shape[2])

    def concatenate(*tensors: Tensor) -> Tensor:
        return torch.cat([_pad_length(tensor, length - tensor.shape[2]) for tensor in tensors])

    return [
        (concatenate(first_keys, second_keys), concatenate(first_values, second_values))
        for (first_keys, first_values), (second_keys, second_values) in zip(first, second, strict=True)
    ]


@torch.no_grad()
def matches_reference(forward: LLMForward, prefix: PrefixCache, num_tokens: int) -> bool:
    """Whether the hidden states of token-by-token decoding with a KVCache equal those of one forward pass.

    Tested on `num_tokens` tokens after the prefix, of which the last ones are decoded, because nothing in an LLM's
    config says whether its attention is fully replaceable.
    """
    decoder, device, prompt_len = forward.decoder, prefix.keys[0].device, num_tokens - PROBE_TOKENS
    text = forward.embed(torch.linspace(0, forward.num_tokens - 1, num_tokens, device=device).long())[None]
    reference = decoder(inputs_embeds=text, use_cache=False, **prefix.arguments(text)).last_hidden_state
    recorder, prompt = PrefillRecorder(prefix), text[:, :prompt_len]
    decoder(inputs_embeds=prompt, use_cache=False, **recorder.arguments(prompt))
    prompt_lengths = torch.tensor([prefix.length + prompt_len], device=device)
    cache = KVCache.from_prompts(recorder, prompt_lengths, num_hypotheses=2)
    hidden = []
    for index in range(prompt_len, num_tokens):
        token = text[:, index : index + 1].expand(2, -1, -1)  # (2, 1, hidden)
        hidden.append(decoder(inputs_embeds=token, use_cache=False, **cache.arguments()).last_hidden_state)
        cache.advance(None)
    expected = reference[:, prompt_len:].expand(2, -1, -1)
    return nearly_equal(torch.cat(hidden, dim=1), expected, TOLERANCE)
