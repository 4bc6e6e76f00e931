"""What it saves to let only target positions meet the LM head: our loss against logits at every position.

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


def everywhere(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy from logits at all positions, as a causal LM with labels computes it."""
    logits = head(hidden).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")


def targets_only(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy from logits at target positions."""
    chosen = labels.flatten() != -100
    return summed_loss(head, hidden.flatten(0, 1)[chosen], labels.flatten()[chosen], 0.0)


def main() -> None:
    table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("vocabulary", "all positions", "targets only", "ratio", "losses differ by"):
        table.add_column(column, justify="right")
    for vocabulary in (32_000, 128_256):
        head = torch.nn.Linear(HIDDEN, vocabulary, bias=False).requires_grad_(False)
        hidden = torch.randn(BATCH, LENGTH, HIDDEN)
        labels = torch.full((BATCH, LENGTH), -100)
        labels[:, -TARGETS:] = torch.randint(vocabulary, (BATCH, TARGETS))
        seconds, losses = {}, {}
        for way in (everywhere, targets_only):
            times = []
            for _ in range(REPEATS):
                states = hidden.clone().requires_grad_()
                start_time = time.perf_counter()
                loss = way(head, states, labels)
                loss.backward()
                times.append(time.perf_counter() - start_time)
            seconds[way], losses[way] = median(times), float(loss.detach())
        slow, fast = seconds[everywhere], seconds[targets_only]
        difference = abs(losses[everywhere] / losses[targets_only] - 1)
        table.add_row(f"{vocabulary:,}", f"{slow:.3f} s", f"{fast:.3f} s", f"{slow / fast:.1f}", f"{difference:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
