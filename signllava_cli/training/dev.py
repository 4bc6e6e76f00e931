"""The loss on the dev split, the same at every evaluation and on any number of ranks."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from signllava_cli.console import progress
from signllava_cli.data.batches import make_batch
from signllava_cli.data.labelled import LabelledClips
from signllava_cli.model.assembly import Assembled
from signllava_cli.recipe import Recipe


@torch.no_grad()
def dev_loss(
    assembled: Assembled,
    labelled: LabelledClips,
    recipe: Recipe,
    accelerator: Accelerator,
    should_stop: Callable[[], bool],
) -> float | None:
    """Mean cross-entropy per target token of the clips `labelled` under gold context, without label smoothing.

    The task of a clip is a function of the seed and the clip: every evaluation asks the same.

    Returns None when `should_stop` became true before the end, on any rank.
    """
    clips = labelled.split.clips
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    size, ranks = recipe.train.micro_batch_size, accelerator.num_processes
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    starts = range(0, len(clips), size * ranks)
    with without_dropout(assembled.model), progress("dev loss", len(starts)) as line:
        for start in starts:
            if should_stop():
                return None
            mine = clips[start + size * accelerator.process_index :][:size]
            line.advance()
            if not mine:
                continue
            draws = [np.random.default_rng([recipe.run.seed, clip.row]) for clip in mine]
            examples = labelled.examples(mine, draws, [True] * len(mine))
            batch = make_batch(examples, widths, assembled.pad_id, "right").to(accelerator.device)
            loss, targets = assembled.model(batch)
            totals += torch.tensor([float(loss), targets], dtype=torch.float64, device=totals.device)
    loss_sum, target_count = accelerator.reduce(totals, "sum").tolist()
    return float(loss_sum / target_count)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout off, and the rest of the model as it is.

    model.eval() would do more than is wanted in the middle of training: on some CPUs bitsandbytes repacks its
    4-bit weights in eval mode, and training cannot go on from there.
    """
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()
