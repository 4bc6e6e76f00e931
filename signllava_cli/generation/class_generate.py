"""transformers' `generate` of an LLM class, from input embeddings; and whether a class computes the same with it."""

import inspect
from typing import Any

import torch
from torch import Tensor

from signllava_cli.errors import UserError
from signllava_cli.model.llm_forward import LLMForward, nearly_equal, relative_difference
from signllava_cli.model.llm_parts import base_llm

PROBE_TOKENS = 6  # of the shorter of two prompts
TOLERANCE = 0.05  # relative RMS of logits: with a cache, 8 bits round otherwise
PADDING_TOLERANCE = 0.012  # relative RMS: bfloat16 and 4 bits reach 0.009, RecurrentGemma 0.016
PADDING_FACTOR = 3.0  # or of the effect of other rows of the batch: 8 bits reach 0.013


def embeddings_to_tokens(llm: Any, embeddings: Tensor, attention_mask: Tensor, **options: Any) -> Any:
    """The output of `generate` for prompts of input embeddings (B, L, hidden), padded on the left.

    Some classes pass embeddings on, but do not name them in the signature by which transformers decides this.
    """
    causal_lm = base_llm(llm)
    prepare = causal_lm.prepare_inputs_for_generation
    has_embeddings = "inputs_embeds" in inspect.signature(prepare).parameters
    if not has_embeddings:

        def prepare_with_embeddings(input_ids: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
            return prepare(input_ids, inputs_embeds=inputs_embeds, **kwargs)

        causal_lm.prepare_inputs_for_generation = prepare_with_embeddings
    try:
        return llm.generate(inputs_embeds=embeddings, attention_mask=attention_mask, **options)
    finally:
        if not has_embeddings:
            del causal_lm.prepare_inputs_for_generation


@torch.no_grad()
def decodes_batches(llm: Any, forward: LLMForward, device: torch.device) -> bool:
    """Whether `generate` gives a prompt the same logits in a batch, padded, as alone.

    Raises:
        UserError: alone, its logits are not those of the forward pass.
    """
    ids = torch.linspace(0, forward.num_tokens - 1, 3 * PROBE_TOKENS, device=device).long()  # of the longer prompt
    long = forward.embed(ids)[None]  # (1, L, hidden)
    short = long[:, PROBE_TOKENS : 2 * PROBE_TOKENS]  # (1, S, hidden)
    expected = forward.head(forward.decoder(inputs_embeds=short, use_cache=False).last_hidden_state[:, -1])
    mask = torch.ones_like(ids)[None]  # (1, L)
    alone = _next_logits(llm, short, mask[:, :PROBE_TOKENS])
    if not nearly_equal(alone, expected, TOLERANCE):
        raise UserError(
            f"llm.path: `generate` of {type(base_llm(llm)).__name__} gives other logits than its forward pass; use "
            "another LLM."
        )
    beside = _next_logits(llm, torch.cat([short, long[:, :PROBE_TOKENS]]), mask[:, :PROBE_TOKENS].expand(2, -1))[:1]
    padding = torch.zeros_like(long[:, : 2 * PROBE_TOKENS])
    padded_mask = mask.index_fill(1, torch.arange(2 * PROBE_TOKENS, device=device), 0)
    batch = torch.cat([long, torch.cat([padding, short], dim=1)])  # (2, L, hidden)
    padded = _next_logits(llm, batch, torch.cat([mask, padded_mask]))[1:]
    tolerance = max(PADDING_TOLERANCE, PADDING_FACTOR * relative_difference(beside, alone))
    return nearly_equal(padded, alone, tolerance)


def _next_logits(llm: Any, embeddings: Tensor, mask: Tensor) -> Tensor:
    """The logits (B, vocabulary) of the next token, as `generate` gives them."""
    options: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False, "temperature": None, "top_p": None}
    output = embeddings_to_tokens(
        llm, embeddings, mask, **options, top_k=None, return_dict_in_generate=True, output_logits=True, pad_token_id=0
    )
    logits: Tensor = output.logits[0]
    return logits
