"""Cross-entropy at the positions that predict a target, a bounded number of logits at a time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from signllava_cli.model.partitioning import is_partitioned

TARGETS_PER_CHUNK = 1024  # logits in memory at once: 1024 x 128,256 float32 are 0.5 GB


def summed_loss(head: nn.Module, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, summed (float32 scalar), of `targets` (N,) under the hidden states (N, hidden) before `head`.

    The head is frozen, so the gradient by the states is all that a backward pass wants of it, and a sum's gradient
    does not wait for the rest of the model: it is taken while the chunk's logits are there, which are therefore
    neither kept nor computed twice.
    """
    if states.requires_grad and any(is_partitioned(weight) for weight in head.parameters()):
        # ZeRO-3 counts on a backward pass for each forward pass, in its own time
        loss = states.new_zeros((), dtype=torch.float32)
        for chunk, its in zip(states.split(TARGETS_PER_CHUNK), targets.split(TARGETS_PER_CHUNK), strict=True):
            loss = loss + checkpoint(_chunk_loss, head, chunk, its, label_smoothing, use_reentrant=False)
        return loss
    loss = _SummedLoss.apply(states, head, targets, label_smoothing)
    return loss


def _chunk_loss(head: nn.Module, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return F.cross_entropy(head(states).float(), targets, label_smoothing=label_smoothing, reduction="sum")


class _SummedLoss(torch.autograd.Function):
    """The loss, with its gradient by the states already taken in the forward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: nn.Module, targets: Tensor, label_smoothing: float) -> Tensor:
        loss = states.new_zeros((), dtype=torch.float32)
        wants_gradient = ctx.needs_input_grad[0]
        gradients = []
        for chunk, its in zip(states.split(TARGETS_PER_CHUNK), targets.split(TARGETS_PER_CHUNK), strict=True):
            with torch.set_grad_enabled(wants_gradient):
                leaf = chunk.detach().requires_grad_(wants_gradient)
                chunk_loss = _chunk_loss(head, leaf, its, label_smoothing)
            if wants_gradient:
                gradients += torch.autograd.grad(chunk_loss, leaf)
            loss += chunk_loss.detach()
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients))
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None
