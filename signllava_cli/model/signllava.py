"""The model: projectors in front of an LLM, and the loss at the positions that matter."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from signllava_cli.data.batches import Batch
from signllava_cli.model.llm import decoder_and_head
from signllava_cli.model.projector import Projector
from signllava_cli.recipe import Stream

TARGETS_PER_CHUNK = 1024  # logits in memory at once: 1024 x 128,256 float32 are 0.5 GB


class SignLlava(nn.Module):
    """Joins the projectors of some streams to a causal LLM.

    Args:
        llm: a frozen causal LLM, or PEFT's wrapping of one.
        streams: the recipe's streams, in the order in which they stand in the sequence.
        seed: draws the initial projectors.
    """

    def __init__(self, llm: Any, streams: dict[str, Stream], seed: int) -> None:
        super().__init__()
        self.llm = llm
        table = llm.get_input_embeddings().weight
        scale = float(table.float().std())
        generator = torch.Generator().manual_seed(seed)
        self.projectors = nn.ModuleDict(
            {name: Projector(stream, table.shape[1], scale, generator) for name, stream in streams.items()}
        ).to(table.device)

    def embed(self, batch: Batch) -> Tensor:
        """The input embeddings (B, L, hidden): words from the LLM's table, frames from the projectors.

        Every position was settled when the batch was made, so nothing is searched for and nothing can be
        misplaced. A stream without frames in this batch still takes part, with weight zero, so that every
        rank has a gradient for every projector.
        """
        words = self.llm.get_input_embeddings()(batch.input_ids)
        rows = words.reshape(-1, words.shape[-1])
        for name, projector in self.projectors.items():
            assert isinstance(projector, Projector)
            stream = batch.streams[name]
            with torch.autocast("cuda", words.dtype, enabled=words.is_cuda and words.dtype != torch.float32):
                frames = projector(stream.frames)
            opening, closing = projector.boundary[:, None].expand(-1, len(stream.opens), -1)
            places = torch.cat([stream.positions, stream.opens, stream.closes])
            rows = rows.index_copy(0, places, torch.cat([frames, opening, closing]).to(rows.dtype))
        return rows.view_as(words)

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """The sum of the cross-entropy over the batch's targets (float32 scalar), and their number.

        Only hidden states that predict a target meet the LM head, a bounded number at a time.
        """
        decoder, head = decoder_and_head(self.llm)
        hidden = decoder(
            inputs_embeds=self.embed(batch), attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        predictors = hidden.reshape(-1, hidden.shape[-1])[batch.predictors]
        loss = predictors.new_zeros((), dtype=torch.float32)
        for states, targets in zip(
            predictors.split(TARGETS_PER_CHUNK), batch.targets.split(TARGETS_PER_CHUNK), strict=True
        ):
            loss = loss + checkpoint(summed_loss, head, states, targets, label_smoothing, use_reentrant=False)
        return loss, len(batch.targets)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What this model trains: the projectors and, with an adapter, its weights."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}


def summed_loss(head: nn.Module, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy, summed, of `targets` (N,) under hidden states (N, hidden); the logits are (N, vocabulary)."""
    logits = head(states).float()
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
