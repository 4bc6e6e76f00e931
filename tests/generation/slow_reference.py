"""The slow reference of generation: one clip at a time, in signing order, by transformers' own generate."""

import itertools
from pathlib import Path

import torch

from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.generation.decoding import generate_batch
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.model.loading import ModelBundle, load_checkpoint_bundle
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe


def open_run(run: Path, *overrides: str) -> tuple[Recipe, ModelBundle, Split]:
    checkpoint = find_checkpoint(run)
    recipe = checkpoint_recipe(checkpoint, ["generate.split=dev", "generate.max_new_tokens=8", *overrides])
    bundle = load_checkpoint_bundle(checkpoint, recipe, torch.device("cpu"))
    return recipe, bundle, open_split(recipe.data, recipe.streams, "dev")


def open_builder(recipe: Recipe, bundle: ModelBundle) -> ExampleBuilder:
    return ExampleBuilder(
        bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
    )


def gold_examples(recipe: Recipe, bundle: ModelBundle, split: Split, count: int) -> list[Example]:
    """The first clips as generation shows them under gold context, N = M = 2."""
    builder, instruction = open_builder(recipe, bundle), translation_instruction(recipe.tasks)
    reserve = recipe.generate.max_new_tokens
    return [
        builder.build(
            clip.id,
            split.read(clip),
            instruction,
            split.gold_context(clip, 2, 2),
            reserve=reserve,
            with_answer=False,
        )
        for clip in split.clips[:count]
    ]


def slow_predictions(
    run: Path, source: str, window: int, prelude: int, beams: int
) -> dict[str, tuple[str, list[str]]]:
    """Clip id -> hypothesis and context, with the rule of the context written out again."""
    recipe, bundle, split = open_run(run, f"generate.num_beams={beams}")
    builder, instruction = open_builder(recipe, bundle), translation_instruction(recipe.tasks)
    predictions: dict[str, tuple[str, list[str]]] = {}
    for _, recording in itertools.groupby(split.annotated, key=lambda clip: clip.recording):
        clips, hypotheses = list(recording), list[str]()
        for p, clip in enumerate(clips):
            before = [earlier.translation for earlier in clips[:p]] if source == "gold" else hypotheses
            visible = before if p < window + prelude else [*before[:prelude], *before[p - window : p]]
            context = [] if source == "none" else [text for text in visible if text]
            example = builder.build(clip.id, split.read(clip), instruction, context, reserve=8, with_answer=False)
            text = generate_batch(bundle, [example], recipe)[0].text
            hypotheses.append(text)
            predictions[clip.id] = (text, context)
    return predictions
