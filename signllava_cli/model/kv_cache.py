"""What the hypotheses of clips in decoding have behind them: the keys and values of their positions.

The hypotheses of a clip, its beams or samples, share its prompt. Its keys and values are kept once per clip, and
each layer reads them once for all of these together; transformers' caches hold and compute a prompt for every beam.
Clips enter and leave between steps, so a batch stays full while others end.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from signllava_cli.model.prefix_cache import PROBE_TOKENS, TOLERANCE, PrefixCache

GROWTH_TOKENS = 16  # positions by which the room for new tokens grows


class PrefillRecorder(PrefixCache):
    """A prefix that keeps what it makes of a batch: every layer's keys and values, its own before them."""

    def __init__(self, prefix: PrefixCache) -> None:
        super().__init__(prefix.keys, prefix.values)
        self.all_keys: list[Tensor] = []
        self.all_values: list[Tensor] = []

    def prepend_kv(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """As a prefix does; the layers come in their order."""
        key, value = super().prepend_kv(layer, key, value)
        self.all_keys.append(key)
        self.all_values.append(value)
        return key, value


@dataclass
class KVCache:
    """The keys and values behind `width` hypotheses of each of C clips.

    `prompts`: for each layer, the keys and the values (C, heads, L, head width) of the prompts, of which the first
    `prompt_lengths` (C,) positions are a clip's. `tokens`: the same (C * width, heads, T, head width) of what each
    hypothesis has written, `lengths` (C,) positions of it.
    """

    width: int
    prompts: list[tuple[Tensor, Tensor]]
    prompt_lengths: Tensor
    tokens: list[tuple[Tensor, Tensor]]
    lengths: Tensor

    @classmethod
    def from_prompts(cls, recorded: PrefillRecorder, lengths: Tensor, width: int) -> "KVCache":
        """The memory of C prompts of `lengths` (C,) positions, the prefix counted; nothing is written yet."""
        prompts = list(zip(recorded.all_keys, recorded.all_values, strict=True))
        tokens = [
            tuple(each.new_zeros(len(each) * width, each.shape[1], GROWTH_TOKENS, each.shape[3]) for each in layer)
            for layer in prompts
        ]
        return cls(width, prompts, lengths, tokens, torch.zeros_like(lengths))  # type: ignore[arg-type]

    def arguments(self) -> dict[str, Any]:
        """What a decoder is called with to read one more token (C * width, 1, hidden) of each hypothesis."""
        written = int(self.lengths.max()) + 1
        if written > self.tokens[0][0].shape[2]:
            self.tokens = [
                (_pad_length(keys, GROWTH_TOKENS), _pad_length(values, GROWTH_TOKENS)) for keys, values in self.tokens
            ]
        device = self.lengths.device
        in_prompt = torch.arange(self.prompts[0][0].shape[2], device=device) < self.prompt_lengths[:, None]
        in_tokens = torch.arange(written, device=device) <= self.lengths[:, None]
        self._unseen = self._per_row(~torch.cat([in_prompt, in_tokens], dim=1))[:, None, None]
        self._rows = torch.arange(len(self.lengths) * self.width, device=device)
        self._places, self._written = self._per_row(self.lengths), written
        return {"position_ids": self._per_row(self.prompt_lengths + self.lengths)[:, None], "kv_cache": self}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """The attention (R, 1, heads, head width) of one token in each of R = C * width rows to all before it.

        `query` (R, heads, 1, head width); `key` and `value`, of as many heads as the LLM keeps, are remembered.
        """
        (prompt_keys, prompt_values), (token_keys, token_values) = self.prompts[layer], self.tokens[layer]
        token_keys[self._rows, :, self._places] = key[:, :, 0]
        token_values[self._rows, :, self._places] = value[:, :, 0]
        rows, heads, _, size = query.shape
        kept, length = key.shape[1], prompt_keys.shape[2]
        query = query.view(rows, kept, heads // kept, size)
        token_keys, token_values = token_keys[:, :, : self._written], token_values[:, :, : self._written]
        scores = torch.cat([self._apart(self._together(query) @ prompt_keys.mT), query @ token_keys.mT], dim=-1)
        scores = scores.float() * (size**-0.5 if scaling is None else scaling)
        weights = scores.masked_fill(self._unseen, float("-inf")).softmax(-1).to(value.dtype)
        from_prompts = self._apart(self._together(weights[..., :length]) @ prompt_values)
        return (from_prompts + weights[..., length:] @ token_values).reshape(rows, 1, heads, size)

    def advance(self, parents: Tensor | None) -> None:
        """Every hypothesis has written a token; now each goes on from the one numbered `parents` (C, width)."""
        self.lengths = self.lengths + 1
        if parents is not None:
            clips = torch.arange(len(parents), device=parents.device)[:, None]
            rows = (clips * self.width + parents).flatten()
            self.tokens = [(keys[rows], values[rows]) for keys, values in self.tokens]

    def keep(self, clips: Tensor) -> None:
        """Forget all clips but these (int64 indices)."""
        rows = (clips[:, None] * self.width + torch.arange(self.width, device=clips.device)).flatten()
        self.prompt_lengths, self.lengths = self.prompt_lengths[clips], self.lengths[clips]
        longest = int(self.prompt_lengths.max())
        self.prompts = [(keys[clips, :, :longest], values[clips, :, :longest]) for keys, values in self.prompts]
        self.tokens = [(keys[rows], values[rows]) for keys, values in self.tokens]

    def join(self, others: "KVCache") -> None:
        """Take in the clips of another memory, behind one's own."""
        self.prompts = _concatenate(self.prompts, others.prompts)
        self.tokens = _concatenate(self.tokens, others.tokens)
        self.prompt_lengths = torch.cat([self.prompt_lengths, others.prompt_lengths])
        self.lengths = torch.cat([self.lengths, others.lengths])

    def _per_row(self, per_clip: Tensor) -> Tensor:
        return per_clip.repeat_interleave(self.width, dim=0)

    def _together(self, per_row: Tensor) -> Tensor:
        """(C * width, heads, groups, N) -> (C, heads, width * groups, N): one multiplication a clip and head."""
        rows, heads, groups, size = per_row.shape
        clips = per_row.view(rows // self.width, self.width, heads, groups, size)
        return clips.transpose(1, 2).reshape(rows // self.width, heads, self.width * groups, size)

    def _apart(self, per_clip: Tensor) -> Tensor:
        """The way back."""
        clips, heads, queries, size = per_clip.shape
        rows = per_clip.view(clips, heads, self.width, queries // self.width, size).transpose(1, 2)
        return rows.reshape(clips * self.width, heads, queries // self.width, size)


def _pad_length(tensor: Tensor, by: int) -> Tensor:
    return pad(tensor, (0, 0, 0, by))


def _concatenate(
    ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Layer by layer, both one below the other, the shorter filled up with zeros."""
    length = max(ours[0][0].shape[2], theirs[0][0].shape[2])

    def both(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([_pad_length(each, length - each.shape[2]) for each in (first, second)])

    return [
        (both(our_keys, their_keys), both(our_values, their_values))
        for (our_keys, our_values), (their_keys, their_values) in zip(ours, theirs, strict=True)
    ]


@torch.no_grad()
def matches_reference(llm: nn.Module, decoder: nn.Module, prefix: PrefixCache) -> bool:
    """Whether this LLM reads text token by token from a memory as it reads it in one piece; tried, not guessed."""
    table = llm.get_input_embeddings().weight  # type: ignore[operator]
    text = table[None, torch.linspace(0, len(table) - 1, 2 * PROBE_TOKENS, device=table.device).long()]
    whole = decoder(inputs_embeds=text, use_cache=False, **prefix.arguments(text)).last_hidden_state
    recorder, beginning = PrefillRecorder(prefix), text[:, :PROBE_TOKENS]
    decoder(inputs_embeds=beginning, use_cache=False, **recorder.arguments(beginning))
    memory = KVCache.from_prompts(
        recorder, torch.tensor([prefix.length + PROBE_TOKENS], device=table.device), width=2
    )
    both = []
    for index in range(PROBE_TOKENS, 2 * PROBE_TOKENS):
        token = text[:, index : index + 1].expand(2, -1, -1)
        both.append(decoder(inputs_embeds=token, use_cache=False, **memory.arguments()).last_hidden_state)
        memory.advance(None)
    expected = whole[:, PROBE_TOKENS:].float()
    return bool((torch.cat(both, dim=1).float() - expected).abs().max() <= TOLERANCE * expected.std())
