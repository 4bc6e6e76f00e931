"""Cross-entropy of the targets, computed in chunks of a bounded number of logits."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from signllava_cli.model.partitioning import is_partitioned

TARGETS_PER_CHUNK = 1024  # per chunk: 1024 x 128,256 float32 logits take 0.5 GB


def summed_loss(head: nn.Module, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The summed cross-entropy (float32 scalar) of `targets` (N,), given the hidden states (N, hidden) before `head`.

    The head is frozen, so only the gradient with respect to the states is needed. It is computed in the forward pass,
    chunk by chunk, while the chunk's logits are in memory; so they are neither kept nor computed twice.
    """
    if states.requires_grad and any(is_partitioned(weight) for weight in head.parameters()):
        # ZeRO-3 requires that the backward pass of a module runs with the backward pass of the model
        loss = states.new_zeros((), dtype=torch.float32)
        for chunk, chunk_targets in zip(
            states.split(TARGETS_PER_CHUNK), targets.split(TARGETS_PER_CHUNK), strict=True
        ):
            loss = loss + checkpoint(_chunk_loss, head, chunk, chunk_targets, label_smoothing, use_reentrant=False)
        return loss
    loss = _SummedLoss.apply(states, head, targets, label_smoothing)
    return loss


def _chunk_loss(head: nn.Module, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return F.cross_entropy(head(states).float(), targets, label_smoothing=label_smoothing, reduction="sum")


class _SummedLoss(torch.autograd.Function):
    """The loss, whose gradient with respect to the states is computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: nn.Module, targets: Tensor, label_smoothing: float) -> Tensor:
        loss = states.new_zeros((), dtype=torch.float32)
        needs_gradient = ctx.needs_input_grad[0]
        gradients = []
        for chunk, chunk_targets in zip(
            states.split(TARGETS_PER_CHUNK), targets.split(TARGETS_PER_CHUNK), strict=True
        ):
            with torch.set_grad_enabled(needs_gradient):
                leaf = chunk.detach().requires_grad_(needs_gradient)
                chunk_loss = _chunk_loss(head, leaf, chunk_targets, label_smoothing)
            if needs_gradient:
                gradients += torch.autograd.grad(chunk_loss, leaf)
            loss += chunk_loss.detach()
        if needs_gradient:
            ctx.save_for_backward(torch.cat(gradients))  # (N, hidden)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None
