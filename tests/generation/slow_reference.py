"""The slow, obvious way: one clip at a time, in order, by transformers' own generate."""

import itertools
from pathlib import Path

import torch

from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.generation.decoding import generate_batch
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.model.loading import ModelBundle, load_checkpoint_bundle
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe


def opened(run: Path, *overrides: str) -> tuple[Recipe, ModelBundle, Split]:
    checkpoint = find_checkpoint(run)
    recipe = checkpoint_recipe(checkpoint, ["generate.split=dev", "generate.max_new_tokens=8", *overrides])
    bundle = load_checkpoint_bundle(checkpoint, recipe, torch.device("cpu"))
    return recipe, bundle, open_split(recipe.data, recipe.streams, "dev")


def gold_examples(recipe: Recipe, bundle: ModelBundle, split: Split, count: int) -> list[Example]:
    """The first clips as generation meets them under gold context, N = M = 2."""
    builder, room = (
        ExampleBuilder(bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude),
        recipe.generate.max_new_tokens,
    )
    return [
        builder.build(clip, split.read(clip), split.gold_context(clip, 2, 2), None, room=room)
        for clip in split.clips[:count]
    ]


def slow_predictions(
    run: Path, source: str, window: int, prelude: int, beams: int
) -> dict[str, tuple[str, list[str]]]:
    """One clip at a time in signing order: clip id -> hypothesis and the context it saw, written out by hand."""
    recipe, bundle, split = opened(run, f"generate.num_beams={beams}")
    builder = ExampleBuilder(bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude)
    done: dict[str, tuple[str, list[str]]] = {}
    for _, its in itertools.groupby(split.annotated, key=lambda clip: clip.recording):
        clips, said = list(its), list[str]()
        for p, clip in enumerate(clips):
            before = [each.translation for each in clips[:p]] if source == "gold" else said
            seen = before if p < window + prelude else [*before[:prelude], *before[p - window : p]]
            context = [] if source == "none" else [text for text in seen if text]
            example = builder.build(clip, split.read(clip), context, None, room=8)
            text = generate_batch(bundle, [example], recipe)[0].text
            said.append(text)
            done[clip.id] = (text, context)
    return done
