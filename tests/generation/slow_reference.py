"""The slow, obvious way: one clip at a time, in order, by transformers' own generate."""

import itertools
from pathlib import Path

import torch

from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.generation.decoding import decode
from signllava_cli.model.assembly import Assembled, assemble_checkpoint
from signllava_cli.model.checkpoint import find_checkpoint, recipe_of
from signllava_cli.recipe import Recipe


def opened(run: Path, *overrides: str) -> tuple[Recipe, Assembled, Split]:
    checkpoint = find_checkpoint(run)
    recipe = recipe_of(checkpoint, ["generate.split=dev", "generate.max_new_tokens=8", *overrides])
    assembled = assemble_checkpoint(checkpoint, recipe, torch.device("cpu"))
    return recipe, assembled, Split(recipe, "dev")


def gold_examples(recipe: Recipe, assembled: Assembled, split: Split, count: int) -> list[Example]:
    """The first clips as generation meets them under gold context, N = M = 2."""
    builder, room = ExampleBuilder(recipe, assembled.prompts), recipe.generate.max_new_tokens
    return [
        builder.build(clip, split.read(clip), split.gold_context(clip, 2, 2), None, room=room)
        for clip in split.clips[:count]
    ]


def slow_predictions(
    run: Path, source: str, window: int, prelude: int, beams: int
) -> dict[str, tuple[str, list[str]]]:
    """One clip at a time in signing order: clip id -> hypothesis and the context it saw, written out by hand."""
    recipe, assembled, split = opened(run, f"generate.beams={beams}")
    builder = ExampleBuilder(recipe, assembled.prompts)
    done: dict[str, tuple[str, list[str]]] = {}
    for _, its in itertools.groupby(split.annotated, key=lambda clip: clip.recording):
        clips, said = list(its), list[str]()
        for p, clip in enumerate(clips):
            before = [each.translation for each in clips[:p]] if source == "gold" else said
            seen = before if p < window + prelude else [*before[:prelude], *before[p - window : p]]
            context = [] if source == "none" else [text for text in seen if text]
            example = builder.build(clip, split.read(clip), context, None, room=8)
            text = decode(assembled, [example], recipe)[0].text
            said.append(text)
            done[clip.id] = (text, context)
    return done
