"""The KV cache of decoding: the keys and values of the tokens before the next one, for several hypotheses per clip.

The hypotheses of a clip (beams or samples) share its prompt, whose keys and values are stored and read once. Generated
tokens are stored where they were computed and never move: when a hypothesis continues another one, only the table of
its ancestors changes, and a mask hides all other tokens from it. So a layer is one call of sdpa, and beams cost no
copies; the caches of transformers store a prompt once per beam, and reorder all keys and values at each step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from signllava_cli.model.attention import Scores, visible_keys
from signllava_cli.model.llm_forward import LLMForward
from signllava_cli.model.prefix_cache import PROBE_TOKENS, PrefixCache, require_equal

GROWTH_STEPS = 32  # for the tokens of so many steps, space is reserved at a time


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


class KVCache:
    """The keys and values of C clips, each with H = `num_hypotheses` hypotheses.

    Clip c has row c of each layer's `keys` and `values` (rows, heads, S, head width): first the tokens of its prompt,
    then, for each step, one token of each hypothesis. These tensors may have more rows than clips, and more tokens
    than are used.

    `prompt_lengths`: int64 (rows,). `steps`: int64 (rows,), the tokens that each hypothesis has generated.
    `ancestors`: int64 (rows, H, steps), which of the H tokens of a step belongs to a hypothesis.
    """

    def __init__(self, num_hypotheses: int, device: torch.device) -> None:
        self.num_hypotheses, self.device = num_hypotheses, device
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.prompt_lengths = torch.empty(0, dtype=torch.int64, device=device)
        self.steps = torch.empty(0, dtype=torch.int64, device=device)
        self.ancestors = torch.empty(0, num_hypotheses, 0, dtype=torch.int64, device=device)
        self.num_allocations = 0  # of new tensors: addresses change
        self._known: list[tuple[int, int]] = []  # prompt length and steps of each clip, for the CPU

    @property
    def num_clips(self) -> int:
        """C, the number of clips."""
        return len(self._known)

    @property
    def num_keys(self) -> int:
        """The stored tokens of a clip, at most, those of the next step included."""
        return max(length + (steps + 1) * self.num_hypotheses for length, steps in self._known)

    @property
    def max_rows(self) -> int:
        """The number of clips for which there is space."""
        return len(self.steps)

    @property
    def max_keys(self) -> int:
        """S, the number of tokens for which there is space."""
        return self.keys[0].shape[2] if self.keys else 0

    def add(self, recorder: PrefillRecorder, lengths: list[int]) -> None:
        """Append clips without generated tokens, whose prompts have `lengths` tokens, the prefix included."""
        if not self.keys:
            self.keys, self.values = (
                [tensor.new_empty(0, tensor.shape[1], 0, tensor.shape[3]) for tensor in recorded]
                for recorded in (recorder.all_keys, recorder.all_values)
            )
        first = self.num_clips
        self._known += [(length, 0) for length in lengths]
        self._reserve()
        rows = slice(first, self.num_clips)
        for stored, recorded in ((self.keys, recorder.all_keys), (self.values, recorder.all_values)):
            for tensor, new in zip(stored, recorded, strict=True):
                tensor[rows, :, : new.shape[2]] = new
        self.prompt_lengths[rows] = torch.tensor(lengths, device=self.device)
        self.steps[rows] = 0

    def keep(self, clips: list[int]) -> None:
        """Remove all clips but those of the indices `clips`, which become clips 0, 1, ... in this order.

        Only clips whose index changes are copied.
        """
        moved = [(new, old) for new, old in enumerate(clips) if new != old]
        if moved:
            new, old = torch.tensor(moved, device=self.device).T  # (moved,), (moved,)
            for tensor in (*self.keys, *self.values, self.prompt_lengths, self.steps, self.ancestors):
                tensor[new] = tensor[old]
        self._known = [self._known[clip] for clip in clips]
        self._reset_rows()

    def advance(self, parents: Tensor | None) -> None:
        """Count the token that every hypothesis has added; then hypothesis h of clip c continues `parents[c, h]`.

        `parents`: int64 (C, H), or None where every hypothesis continues itself.
        """
        clips, hypotheses = self.num_clips, self.num_hypotheses
        ancestors, steps = self.ancestors[:clips], self.steps[:clips]
        own = torch.arange(hypotheses, device=self.device).expand(clips, -1)[..., None]  # (C, H, 1)
        ancestors.scatter_(2, steps[:, None, None].expand_as(own), own)
        if parents is not None:
            ancestors.copy_(ancestors.gather(1, parents[..., None].expand_as(ancestors)))
        steps += 1
        self._known = [(length, known_steps + 1) for length, known_steps in self._known]
        self._reserve()

    def arguments(self, num_rows: int | None = None, num_keys: int | None = None) -> dict[str, Any]:
        """The keyword arguments of the decoder for the next token (rows * H, 1, hidden) of each hypothesis.

        Args:
            num_rows: of the cache; default: those of the C clips.
            num_keys: stored tokens that are read; default: as many as necessary.
        """
        rows, self._num_keys = num_rows or self.num_clips, num_keys or self.num_keys
        prompt_lengths, steps = self.prompt_lengths[:rows, None], self.steps[:rows, None]  # (rows, 1)
        own = torch.arange(self.num_hypotheses, device=self.device)  # (H,)
        self._rows = torch.arange(rows, device=self.device)[:, None]
        self._columns = prompt_lengths + steps * self.num_hypotheses + own  # (rows, H), where next tokens are stored
        self._positions = prompt_lengths + steps  # (rows, 1), of the next tokens
        self._key_positions, self._is_visible = self._see(prompt_lengths, steps, own)
        self._biases: dict[tuple[int, int | None], Tensor] = {}  # by groups and window
        position_ids = self._positions.expand(-1, self.num_hypotheses).reshape(-1, 1)
        return {"position_ids": position_ids, "kv_cache": self}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """The attention (R, 1, heads, value width) of one token in each of R = rows * H rows to all tokens before it.

        `query` (R, heads, 1, head width); `key` (R, key-value heads, 1, head width) and `value` (R, key-value heads,
        1, value width) are stored.
        """
        rows, hypotheses, kv_heads = len(self._rows), self.num_hypotheses, key.shape[1]
        groups = query.shape[1] // kv_heads
        for stored, new in ((self.keys[layer], key), (self.values[layer], value)):
            stored[self._rows, :, self._columns] = new.view(rows, hypotheses, kv_heads, -1)
        keys, values = (stored[layer][:rows, :, : self._num_keys] for stored in (self.keys, self.values))
        # the H * groups queries of a clip and key-value head, together
        query = query.view(rows, hypotheses, kv_heads, groups, -1).transpose(1, 2).flatten(2, 3)
        if scores.is_plain:
            bias = self._bias(groups, scores.sliding_window, query.dtype)
            attended = scaled_dot_product_attention(query, keys, values, bias, scale=scores.scaling)
        else:
            products = (query.float() @ keys.float().mT).view(rows, kv_heads, hypotheses, groups, -1)
            products = products.transpose(1, 2).reshape(rows * hypotheses, kv_heads * groups, 1, -1)
            is_visible = self._visible(scores.sliding_window).flatten(0, 1)[:, None, None]  # (R, 1, 1, S)
            weights = scores.weights(products, is_visible).to(value.dtype)  # (R, heads, 1, S)
            weights = weights.view(rows, hypotheses, kv_heads, groups, -1).transpose(1, 2).flatten(2, 3)
            attended = weights @ values
        attended = attended.view(rows, kv_heads, hypotheses, groups, -1).transpose(1, 2)
        return attended.reshape(rows * hypotheses, 1, kv_heads * groups, -1)

    def _see(self, prompt_lengths: Tensor, steps: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """The position of each stored token, int64 (rows, S), and which a hypothesis sees, bool (rows, H, S)."""
        generated = torch.arange(self._num_keys, device=self.device) - prompt_lengths  # (rows, S); negative: prompt
        step = generated.div(self.num_hypotheses, rounding_mode="floor")  # (rows, S), in which it was generated
        creator = (generated - step * self.num_hypotheses)[:, None]  # (rows, 1, S), the hypothesis that generated it
        index = step.clamp(0, self.ancestors.shape[2] - 1)[:, None].expand(-1, self.num_hypotheses, -1)
        is_ancestor = self.ancestors[: len(steps)].gather(2, index) == creator  # (rows, H, S)
        is_own = (step == steps)[:, None] & (creator == own[:, None])
        is_visible = (generated < 0)[:, None] | ((step < steps)[:, None] & is_ancestor) | is_own
        return prompt_lengths + torch.where(generated < 0, generated, step), is_visible

    def _visible(self, window: int | None) -> Tensor:
        """Which stored tokens a hypothesis sees in a layer with this window, bool (rows, H, S)."""
        if window is None:
            return self._is_visible
        return self._is_visible & visible_keys(self._positions, self._key_positions, window)

    def _bias(self, groups: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores (rows, 1, H * groups, S): 0, or -inf where a token is not visible."""
        if (groups, window) not in self._biases:
            hidden = ~self._visible(window)[:, :, None].expand(-1, -1, groups, -1).flatten(1, 2)[:, None]
            self._biases[groups, window] = torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -torch.inf)
        return self._biases[groups, window]

    def _reserve(self) -> None:
        """Make space for the clips and their next step, in new tensors that are as small as this allows."""
        max_steps = max(steps + 1 for _, steps in self._known)
        has_steps = max_steps <= self.ancestors.shape[2]
        if self.num_clips <= self.max_rows and self.num_keys <= self.max_keys and has_steps:
            return
        self.num_allocations += 1
        max_rows = padded_rows(self.num_clips, self.device)
        max_steps += -max_steps % GROWTH_STEPS
        max_keys = max(length for length, _ in self._known) + max_steps * self.num_hypotheses
        max_keys += -max_keys % GROWTH_STEPS
        for layers in (self.keys, self.values):
            for layer, tensor in enumerate(layers):
                layers[layer] = _resized(tensor, max_rows, max_keys, dim=2)
        self.ancestors = _resized(self.ancestors, max_rows, max_steps, dim=2)
        self.prompt_lengths, self.steps = (
            _resized(tensor, max_rows, max_rows, dim=0) for tensor in (self.prompt_lengths, self.steps)
        )
        self._reset_rows()

    def _reset_rows(self) -> None:
        """Give the rows without a clip one token, so that what is computed for them is finite."""
        self.prompt_lengths[self.num_clips :] = 1
        self.steps[self.num_clips :] = 0


def padded_rows(num_clips: int, device: torch.device) -> int:
    """The rows of a cache for so many clips: on a GPU the next number of the form 2^n or 3 * 2^n, for few shapes."""
    if device.type == "cpu":
        return num_clips
    power = 1 << (num_clips - 1).bit_length()
    return power * 3 // 4 if num_clips <= power * 3 // 4 else power


def _resized(tensor: Tensor, rows: int, size: int, dim: int) -> Tensor:
    """A copy with so many `rows` (dimension 0), and `size` in dimension `dim`: cut, or filled with zeros."""
    shape = list(tensor.shape)
    shape[0], shape[dim] = rows, size
    resized = tensor.new_zeros(shape)
    kept_rows, kept = min(rows, tensor.shape[0]), min(size, tensor.shape[dim])
    resized[:kept_rows].narrow(dim, 0, kept).copy_(tensor[:kept_rows].narrow(dim, 0, kept))
    return resized


@torch.no_grad()
def require_equal_decoding(forward: LLMForward, prefix: PrefixCache, num_tokens: int) -> None:
    """Check that the hidden states of decoding with a KVCache are those of one forward pass.

    Tested on `num_tokens` tokens after the prefix, of which the last ones are decoded, because nothing in an LLM's
    config says whether its attention is fully replaceable.

    Raises:
        CacheError: they are not.
    """
    decoder, device, prompt_len = forward.decoder, prefix.keys[0].device, num_tokens - PROBE_TOKENS
    text = forward.embed(torch.linspace(0, forward.num_tokens - 1, num_tokens, device=device).long())[None]
    reference = decoder(inputs_embeds=text, use_cache=False, **prefix.arguments(text)).last_hidden_state
    recorder, prompt = PrefillRecorder(prefix), text[:, :prompt_len]
    decoder(inputs_embeds=prompt, use_cache=False, **recorder.arguments(prompt))
    cache = KVCache(num_hypotheses=2, device=device)
    cache.add(recorder, [prefix.length + prompt_len])
    swap = torch.tensor([[1, 0]], device=device)  # both hypotheses have the same tokens
    hidden = []
    for index in range(prompt_len, num_tokens):
        token = text[:, index : index + 1].expand(2, -1, -1)  # (2, 1, hidden)
        hidden.append(decoder(inputs_embeds=token, use_cache=False, **cache.arguments()).last_hidden_state)
        cache.advance(swap)
    expected = reference[:, prompt_len:].expand(2, -1, -1)
    require_equal(torch.cat(hidden, dim=1), expected, prefix.tolerance, "KV cache")
