"""The attention of an answer: the weights of all positions before each of its tokens, from one forward pass.

Only the rows of the answer are kept, averaged over heads, layer by layer: L positions of A answer tokens take A * L
numbers per layer, where the attentions that transformers returns take heads * L * L.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from signllava_cli.data.batches import Batch
from signllava_cli.errors import UserError, first_line
from signllava_cli.model.attention import ATTENTION, Scores, unmasked_keys, visible_keys
from signllava_cli.model.llm_parts import base_llm
from signllava_cli.model.signllava_model import SignLlavaModel


class AnswerRecorder:
    """Records the weights of the queries `rows` (A,) of one sequence.

    `weights`: by layer, float32 (A, L) on the CPU, the mean over `heads` (None: all). A layer without attention has
    none.
    """

    def __init__(self, rows: Tensor, heads: Sequence[int] | None) -> None:
        self.rows, self.heads = rows, heads
        self.weights: dict[int, Tensor] = {}

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scores: Scores) -> None:
        """Record a layer with queries (1, heads, L, head width) and keys (1, key-value heads, L, head width).

        Raises:
            UserError: it lacks one of the heads.
        """
        num_heads, num_keys = query.shape[1], key.shape[2]
        if unknown := [head for head in self.heads or () if not 0 <= head < num_heads]:
            raise UserError(f"heads: layer {layer} has no head {unknown[0]}; its heads are 0 to {num_heads - 1}.")
        if mask is None:
            is_visible = visible_keys(self.rows, torch.arange(num_keys, device=key.device), None)  # (A, L)
        else:
            is_visible = unmasked_keys(mask)[:, :, self.rows]  # (1, 1, A, L)
        keys = key.float().repeat_interleave(num_heads // key.shape[1], 1)  # (1, heads, L, head width)
        weights = scores.weights(query[:, :, self.rows].float() @ keys.mT, is_visible)[0]  # (heads, A, L)
        self.weights[layer] = (weights if self.heads is None else weights[list(self.heads)]).mean(0).cpu()


@torch.no_grad()
def answer_attention(
    model: SignLlavaModel, batch: Batch, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> Tensor:
    """The mean attention, float32 (A, L), of the positions that predict the A answer tokens of a batch of one clip.

    Each row sums to 1, less the weight of the attention sinks that some LLMs have beside their positions.

    Args:
        layers: the layers that are averaged; by default all that have attention.
        heads: the heads that are averaged; by default all.

    Raises:
        UserError: the LLM has no attention that can be read, or lacks one of the layers or heads.
    """
    assert len(batch.clips) == 1
    llm = base_llm(model.llm)
    original_attention, recorder = llm.config._attn_implementation, AnswerRecorder(batch.logit_indices, heads)
    refusal = f"The attention of {type(llm).__name__} cannot be read"
    try:
        llm.set_attn_implementation(ATTENTION)
        model.llm_forward.decoder(inputs_embeds=model.embed(batch), use_cache=False, recorder=recorder)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UserError(f"{refusal}: {first_line(error)}; use another LLM for it.") from None
    finally:
        llm.set_attn_implementation(original_attention)
    if not recorder.weights:
        raise UserError(f"{refusal}: its class calls no attention function of transformers; use another LLM for it.")
    if unknown := [layer for layer in layers or () if layer not in recorder.weights]:
        known = ", ".join(map(str, recorder.weights))
        raise UserError(f"layers: no attention in layer {unknown[0]}; the layers with attention are {known}.")
    return torch.stack([recorder.weights[layer] for layer in layers or recorder.weights]).mean(0)
