"""The model: an LLM with a projector per stream, and its loss."""

from typing import Any

import torch
from torch import Tensor, nn

from signllava_cli.console import info
from signllava_cli.data.batches import Batch
from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.model.llm_forward import divide_forward
from signllava_cli.model.llm_mode import set_frozen_mode
from signllava_cli.model.loss import summed_loss
from signllava_cli.model.prefix_cache import CacheError, PrefixCache, build_prefix_cache
from signllava_cli.model.projector import Projector
from signllava_cli.recipe import Stream


class SignLlavaModel(nn.Module):
    """A causal LLM with projectors for some streams.

    Args:
        llm: a frozen causal LLM, or a PeftModel of one.
        streams: the recipe's streams, in the order of the sequence.
        seed: of the initial projectors.
    """

    def __init__(self, llm: Any, streams: dict[str, Stream], seed: int) -> None:
        super().__init__()
        self.llm = llm
        self.prefix: PrefixCache | None = None
        self.llm_forward = divide_forward(llm)
        hidden, spread = self.llm_forward.hidden, self.llm_forward.spread
        generator = torch.Generator().manual_seed(seed)
        self.projectors = nn.ModuleDict(
            {
                name: Projector(projector_input, hidden, spread, generator)
                for name, projector_input in projector_inputs(streams).items()
            }
        ).to(llm.get_input_embeddings().weight.device)

    def train(self, mode: bool = True) -> "SignLlavaModel":
        """Training mode for what is trained; dropout and noise of the frozen LLM stay off."""
        super().train(mode)
        if mode:
            set_frozen_mode(self.llm)
        return self

    def reuse_prefix(self, ids: tuple[int, ...], max_seq_len: int) -> bool:
        """Build the prefix cache of the constant text `ids`, for batches that omit it; False if this is not possible.

        It is possible only while the LLM is frozen: an adapter changes the keys and values of the text.
        """
        if any(weight.requires_grad for weight in self.llm.parameters()):
            return False
        device = next(self.projectors.parameters()).device
        ids_on_device = torch.tensor(ids, device=device)
        try:
            self.prefix = build_prefix_cache(self.llm, self.llm_forward, ids_on_device, max_seq_len)
        except CacheError as error:
            info(f"no prefix cache, the constant text is computed in each step: {error}")
            return False
        self.prefix.attach()
        return True

    def embed(self, batch: Batch) -> Tensor:
        """The input embeddings (B, L, hidden): of tokens from the LLM's table, of frames from the projectors.

        The projector of a stream without frames in this batch runs too, on no frames, so that every rank has a
        gradient for every projector.
        """
        embeddings = self.llm_forward.embed(batch.input_ids)  # (B, L, hidden)
        dtype, length = embeddings.dtype, embeddings.shape[1]
        for name, projector in self.projectors.items():
            stream = batch.streams[name]
            with torch.autocast("cuda", dtype, enabled=embeddings.is_cuda and dtype != torch.float32):
                projected = projector(stream.frames, stream.windows, len(stream.start_indices))  # (E + 2 C, hidden)
            indices = torch.cat([stream.embedding_indices, stream.start_indices, stream.end_indices])
            # no view, unlike `index_copy` into (B * L, hidden): torch.compile would compile the first layer separately
            embeddings = embeddings.index_put((indices // length, indices % length), projected.to(dtype))
        return embeddings

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """The cross-entropy summed over the batch's targets (float32 scalar), and the number of targets.

        The batch must be padded on the right: causal attention then needs no mask for padding. Only the hidden states
        that predict a target become logits.
        """
        decoder, head = self.llm_forward.decoder, self.llm_forward.head
        embeddings = self.embed(batch)
        prefix_arguments = self.prefix.arguments(embeddings) if batch.prefix_len and self.prefix else {}
        hidden = decoder(inputs_embeds=embeddings, use_cache=False, **prefix_arguments).last_hidden_state
        states = hidden.reshape(-1, hidden.shape[-1])[batch.logit_indices]  # (N, hidden)
        return summed_loss(head, states, batch.targets, label_smoothing), len(batch.targets)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters with `requires_grad`, by name: those of the projectors and, if there is one, the adapter."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
