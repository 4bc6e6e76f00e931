"""The loss on the dev split and the BLEU of its translations, the same on any number of ranks."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Collate
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.generation.decoding import generate_batch
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe

ShouldStop = Callable[[], bool]


@torch.no_grad()
def dev_loss(
    bundle: ModelBundle,
    labeled: LabeledClips,
    recipe: Recipe,
    accelerator: Accelerator,
    collate: Collate,
    should_stop: ShouldStop,
    batches: int | None = None,
) -> float | None:
    """Mean cross-entropy per target token of the clips `labeled` under gold context, without label smoothing.

    The task of a clip is a function of the seed and the clip: every evaluation asks the same. `batches` bounds how
    many batches each rank computes.

    Returns None when `should_stop` became true before the end, on any rank.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    shares = list(_rank_batches(labeled.split.clips, recipe.train.micro_batch_size, accelerator))[:batches]
    with eval_mode(bundle.model), progress("dev loss", len(shares)) as line:
        for mine, counted in shares:
            if should_stop():
                return None
            line.advance()
            rngs = [np.random.default_rng([recipe.run.seed, clip.row]) for clip in mine]
            examples = labeled.examples(mine, rngs)
            loss, targets = bundle.model(collate(examples).to(accelerator.device))
            if counted:
                totals += torch.tensor([float(loss), targets], dtype=torch.float64, device=totals.device)
    loss_sum, target_count = accelerator.reduce(totals, "sum").tolist()
    return float(loss_sum / target_count)


@torch.no_grad()
def dev_bleu(
    bundle: ModelBundle, labeled: LabeledClips, recipe: Recipe, accelerator: Accelerator, should_stop: ShouldStop
) -> float | None:
    """Corpus BLEU-4 of the hypotheses of `train.dev_clips` clips, evenly spread over the split, under gold context.

    They are decoded by greedy or beam search, with the recipe's section `generate`. (`require_stage` refuses its
    `temperature`; its splits, sources, tasks, controls and abstention do not apply.)

    Returns None when `should_stop` became true before the end, on any rank.
    """
    from signllava_cli.evaluation.metrics.text_metrics import Bleu  # sacreBLEU: only runs that want it load it

    every = labeled.split.clips
    count = min(recipe.train.dev_clips or len(every), len(every))
    clips = [every[index] for index in np.linspace(0, len(every) - 1, count).round().astype(int).tolist()]
    shares = list(_rank_batches(clips, recipe.generate.batch_size, accelerator))
    pairs: list[tuple[str, str]] = []
    with eval_mode(bundle.model), progress("dev BLEU", len(shares)) as line:
        for mine, counted in shares:
            if should_stop():
                return None
            line.advance()
            examples = labeled.prompts_only(mine, reserve=recipe.generate.max_new_tokens)
            decoded = generate_batch(bundle, examples, recipe)
            if counted:
                pairs += [
                    (each.abstained or each.text, clip.translation) for each, clip in zip(decoded, mine, strict=True)
                ]
    pairs = gather_object(pairs)
    hypotheses, references = [hypothesis for hypothesis, _ in pairs], [reference for _, reference in pairs]
    return float(Bleu().compute(predictions=hypotheses, references=references)["bleu4"])


def _rank_batches(
    clips: Sequence[Clip], size: int, accelerator: Accelerator
) -> Iterator[tuple[Sequence[Clip], bool]]:
    """This rank's batches of `clips`, as many as every other rank's, each with whether it counts.

    A rank without clips of its own computes another's: under ZeRO-3 all ranks must call the model equally often.
    """
    for start in range(0, len(clips), size * accelerator.num_processes):
        mine = clips[start + size * accelerator.process_index :][:size]
        yield (mine, True) if mine else (clips[start : start + 1], False)


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout and gradient checkpointing off inside the block.

    That is eval mode, except for bitsandbytes: on some CPUs it repacks its 4-bit weights when it is in eval mode, and
    training cannot go on from there.
    """
    training = [
        module
        for module in model.modules()
        if module.training and not type(module).__module__.startswith("bitsandbytes")
    ]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
