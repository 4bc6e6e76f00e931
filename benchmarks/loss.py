"""The time of our loss, with logits only at positions that predict a target, against logits at all positions.

    python benchmarks/loss.py

Forward and backward of the same hidden states through the same head: 4 sequences of 512 positions, 30 targets
each, at the vocabulary of Llama 2 and of Llama 3. The losses must agree.
"""

import platform
import time
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from signllava_cli.model.loss import summed_loss

BATCH, LENGTH, TARGETS, HIDDEN, REPEATS = 4, 512, 30, 256, 3


def full_logits_loss(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy from logits at all positions, as in a causal LM of transformers."""
    logits = head(hidden).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")


def target_logits_loss(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy from logits at target positions."""
    is_target = labels.flatten() != -100
    return summed_loss(head, hidden.flatten(0, 1)[is_target], labels.flatten()[is_target], 0.0)


def main() -> None:
    table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("vocabulary", "all positions", "targets only", "ratio", "losses differ by"):
        table.add_column(column, justify="right")
    for vocabulary in (32_000, 128_256):
        head = torch.nn.Linear(HIDDEN, vocabulary, bias=False).requires_grad_(False)
        hidden = torch.randn(BATCH, LENGTH, HIDDEN)  # (B, L, hidden)
        labels = torch.full((BATCH, LENGTH), -100)  # (B, L)
        labels[:, -TARGETS:] = torch.randint(vocabulary, (BATCH, TARGETS))
        seconds, losses = {}, {}
        for loss_function in (full_logits_loss, target_logits_loss):
            times = []
            for _ in range(REPEATS):
                states = hidden.clone().requires_grad_()
                start_time = time.perf_counter()
                loss = loss_function(head, states, labels)
                loss.backward()
                times.append(time.perf_counter() - start_time)
            seconds[loss_function], losses[loss_function] = median(times), float(loss.detach())
        slow, fast = seconds[full_logits_loss], seconds[target_logits_loss]
        difference = abs(losses[full_logits_loss] / losses[target_logits_loss] - 1)
        table.add_row(f"{vocabulary:,}", f"{slow:.3f} s", f"{fast:.3f} s", f"{slow / fast:.1f}", f"{difference:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
