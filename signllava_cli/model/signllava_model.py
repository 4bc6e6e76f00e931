"""The model: projectors in front of an LLM, and the loss at the positions that matter."""

from typing import Any

import torch
from torch import Tensor, nn

from signllava_cli.data.batches import Batch
from signllava_cli.model.llm import decoder_and_head
from signllava_cli.model.loss import summed_loss
from signllava_cli.model.partitioning import gathered
from signllava_cli.model.prefix_cache import PrefixCache, build_prefix_cache
from signllava_cli.model.projector import Projector
from signllava_cli.recipe import Stream


class SignLlavaModel(nn.Module):
    """Joins the projectors of some streams to a causal LLM.

    Args:
        llm: a frozen causal LLM, or PEFT's wrapping of one.
        streams: the recipe's streams, in the order in which they stand in the sequence.
        seed: draws the initial projectors.
    """

    def __init__(self, llm: Any, streams: dict[str, Stream], seed: int) -> None:
        super().__init__()
        self.llm = llm
        self.prefix: PrefixCache | None = None
        table = llm.get_input_embeddings().weight
        with gathered(table):
            scale, hidden = float(table.float().std()), table.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.projectors = nn.ModuleDict(
            {name: Projector(stream, hidden, scale, generator) for name, stream in streams.items()}
        ).to(table.device)

    def reuse_prefix(self, ids: tuple[int, ...]) -> bool:
        """Compute the constant text `ids` once, for batches made without it; False where this LLM cannot.

        Only while nothing of the LLM is trained: an adapter changes what it makes of the text.
        """
        if any(weight.requires_grad for weight in self.llm.parameters()):
            return False
        decoder, _ = decoder_and_head(self.llm)
        device = next(self.projectors.parameters()).device
        self.prefix = build_prefix_cache(self.llm, decoder, torch.tensor(ids, device=device))
        return self.prefix is not None

    def embed(self, batch: Batch) -> Tensor:
        """The input embeddings (B, L, hidden): words from the LLM's table, frames from the projectors.

        Every position was settled when the batch was made, so nothing is searched for and nothing can be
        misplaced. A stream without frames in this batch still takes part, with weight zero, so that every
        rank has a gradient for every projector.
        """
        words = self.llm.get_input_embeddings()(batch.input_ids)
        rows = words.reshape(-1, words.shape[-1])
        for name, projector in self.projectors.items():
            stream = batch.streams[name]
            with torch.autocast("cuda", words.dtype, enabled=words.is_cuda and words.dtype != torch.float32):
                projected = projector(stream.frames, len(stream.opens))
            indices = torch.cat([stream.positions, stream.opens, stream.closes])
            rows = rows.index_copy(0, indices, projected.to(rows.dtype))
        return rows.view_as(words)

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """The sum of the cross-entropy over the batch's targets (float32 scalar), and their number.

        The batch is padded on the right: what no real position can see needs no mask under causal attention. Only
        hidden states that predict a target meet the LM head.
        """
        decoder, head = decoder_and_head(self.llm)
        embeddings = self.embed(batch)
        prefix_len = self.prefix.arguments(embeddings) if batch.prefix_len and self.prefix else {}
        hidden = decoder(inputs_embeds=embeddings, use_cache=False, **prefix_len).last_hidden_state
        predictors = hidden.reshape(-1, hidden.shape[-1])[batch.predictors]
        return summed_loss(head, predictors, batch.targets, label_smoothing), len(batch.targets)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What this model trains: the projectors and, with an adapter, its weights."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}
