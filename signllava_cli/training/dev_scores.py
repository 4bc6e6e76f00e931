"""The loss on the dev split and the BLEU of its hypotheses; both are the same on any number of ranks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Collate
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.generation.decoding import decode_all, decoder_in_training
from signllava_cli.model.llm_mode import eval_mode
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe

ShouldStop = Callable[[], bool]


@torch.no_grad()
def dev_loss(
    bundle: ModelBundle,
    dev_set: LabeledClips,
    recipe: Recipe,
    accelerator: Accelerator,
    collate: Collate,
    should_stop: ShouldStop,
    num_batches: int | None = None,
) -> float | None:
    """Mean cross-entropy per target token of the clips of `dev_set` with gold context, without label smoothing.

    The task of a clip is a function of the seed and the clip, so every evaluation has the same tasks.

    Args:
        num_batches: compute only the first batches of each rank; default: all.

    Returns:
        The mean, or None when `should_stop` returned true on a rank before the end.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # sum of the loss, number of targets
    batches = list(_rank_batches(dev_set.split.clips, recipe.train.micro_batch_size, accelerator))[:num_batches]
    with eval_mode(bundle.model), progress("dev loss", len(batches)) as bar:
        for clips, is_counted in batches:
            if should_stop():
                return None
            bar.advance()
            rngs = [np.random.default_rng([recipe.run.seed, clip.row]) for clip in clips]
            examples = dev_set.examples(clips, rngs)
            loss, num_targets = bundle.model(collate(examples).to(accelerator.device))
            if is_counted:
                totals += torch.tensor([float(loss), num_targets], dtype=torch.float64, device=totals.device)
    loss_sum, target_sum = accelerator.reduce(totals, "sum").tolist()
    return float(loss_sum / target_sum)


@torch.no_grad()
def dev_bleu(
    bundle: ModelBundle,
    dev_set: LabeledClips,
    recipe: Recipe,
    accelerator: Accelerator,
    should_stop: ShouldStop,
    num_batches: int | None = None,
) -> float | None:
    """Corpus BLEU-4 of the hypotheses of `train.dev_clips` clips, evenly spaced in the split, with gold context.

    Decodes by greedy or beam search with the section `generate` of the recipe, of which its splits, context sources,
    tasks, controls and abstention are not used. (`require_stage` refuses `generate.temperature`.) The longest clips
    come first.

    Args:
        num_batches: decode only the first batches of each rank; default: all.

    Returns:
        The BLEU, or None when `should_stop` returned true on a rank before the end.
    """
    from signllava_cli.evaluation.metrics.all_metrics import METRICS  # imports sacreBLEU, so only runs that need it

    all_clips = dev_set.split.clips
    num_clips = min(recipe.train.dev_clips or len(all_clips), len(all_clips))
    indices = np.linspace(0, len(all_clips) - 1, num_clips).round().astype(int)  # (num_clips,)
    num_embeddings = np.sum(list(dev_set.split.count_embeddings().values()), axis=0)
    selected = sorted((all_clips[index] for index in indices.tolist()), key=lambda clip: -num_embeddings[clip.row])
    batch_size = recipe.generate.batch_size
    batches = list(_rank_batches(selected, batch_size, accelerator))[:num_batches]
    pairs: list[tuple[str, str]] = []  # hypothesis, reference
    with decoder_in_training(bundle, recipe) as decoder, progress("dev BLEU", len(batches)) as bar:
        for clips, is_counted in batches:
            if should_stop():
                return None
            bar.advance()
            examples = dev_set.prompts_only(clips, reserve=recipe.generate.max_new_tokens)
            hypotheses = decode_all(decoder, examples, batch_size)
            if is_counted:
                pairs += [
                    (hypothesis.abstained or hypothesis.text, clip.translation)
                    for hypothesis, clip in zip(hypotheses, clips, strict=True)
                ]
    pairs = gather_object(pairs)
    predictions, references = [prediction for prediction, _ in pairs], [reference for _, reference in pairs]
    return float(METRICS["bleu"].metric().compute(predictions=predictions, references=references)["bleu4"])


def _rank_batches(
    clips: Sequence[Clip], batch_size: int, accelerator: Accelerator
) -> Iterator[tuple[Sequence[Clip], bool]]:
    """Yield the batches of this rank, the same number on each rank, each with whether its result counts.

    A rank that has no clips left computes a clip of another rank without counting it: under ZeRO-3 all ranks must
    call the model the same number of times.
    """
    for start in range(0, len(clips), batch_size * accelerator.num_processes):
        batch = clips[start + batch_size * accelerator.process_index :][:batch_size]
        yield (batch, True) if batch else (clips[start : start + 1], False)
