"""Says what a conversion read, what became of each tensor, and what will be different."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from signllava_cli.console import info, print_table, warning
from signllava_cli.errors import escape_unprintable, summarize_names
from signllava_cli.model.layouts import SIGN_LLAVA
from signllava_cli.model.sign_llava_file import SignLlavaCheckpoint
from signllava_cli.model.sign_llava_tensors import SignLlavaParts
from signllava_cli.recipe import Recipe

ROWS_PER_CHUNK = 4096  # of embedding tables that are compared


def print_source(found: SignLlavaCheckpoint, recipe: Recipe, fitted: Recipe, parts: SignLlavaParts) -> None:
    """The files, and what of `recipe` they overrule."""
    for file in found.files:
        info(f"read {file}")
    if found.beside:
        info(f"beside the tensors it holds {summarize_names(found.beside)}: not converted")
    for stream in [each for each in recipe.streams if each not in fitted.streams]:
        why = "--streams" if stream in parts.projectors else "the file, which has no projector for it,"
        info(f"recipe: streams.{stream}: left out by {why}")
    before, after = recipe.to_flat_dict(), fitted.to_flat_dict()
    for key, value in after.items():
        if key not in before:
            info(f"recipe: {key}: {value}")
        elif before[key] != value:
            info(f"recipe: {key}: {before[key]} -> {value}")
    if recipe.lora.enabled:
        info(f"recipe: lora.lora_alpha: {fitted.lora.lora_alpha:g}, as no tensor tells it")
    in_file, in_recipe = [each for each in parts.projectors if each in fitted.streams], list(fitted.streams)
    if in_file != in_recipe:
        warning(
            f"Sign_LLaVA joined the streams in the order {', '.join(in_file)}; this checkpoint joins them "
            f"in the order {', '.join(in_recipe)}. --streams {','.join(in_file)} keeps the old one."
        )


def print_tensor_mapping(
    found: SignLlavaCheckpoint,
    parts: SignLlavaParts,
    streams: Sequence[str],
    rows: Mapping[str, tuple[int, int]],
    recipe: Recipe,
) -> None:
    """A table of every tensor of the source and its fate; the LLM's layers, which are alike, share a row."""
    fates: dict[str, str] = {}
    for stream, projector in parts.projectors.items():
        for ours, source in projector.sources.items():
            fates[source] = f"{stream}.{ours}" if stream in streams else "ignored: --streams leaves it out"
    for ours, source in parts.adapter_sources.items():
        fates[source] = f"adapter, {ours}" if recipe.lora.enabled else "ignored: lora.enabled is false in the recipe"
    if parts.embeddings_source is not None:
        used = sorted({row for pair in rows.values() for row in pair})
        fates[parts.embeddings_source] = f"rows {used} to boundary vectors" if used else "ignored: no row was taken"
    counted: dict[tuple[str, str, str], int] = {}
    for name, tensor in found.tensors.items():
        fate = fates.get(name, "ignored: the LLM's own; it comes from llm.path")
        shape = f"{str(tensor.dtype).removeprefix('torch.')} {' x '.join(map(str, tensor.shape))}"
        alike = (_generalize_layer(escape_unprintable(name)), shape, _generalize_layer(fate))
        counted[alike] = counted.get(alike, 0) + 1
    print_table(
        f"{len(found.tensors)} tensors",
        ["tensor", "number", "is", "became"],
        [[name, number, shape, fate] for (name, shape, fate), number in counted.items()],
    )
    if parts.adapter and not recipe.lora.enabled:
        warning(
            "the adapter was left behind, and without it the LLM is not the one that these projectors were last "
            "trained with. --recipe finetune converts it too."
        )


def _generalize_layer(name: str) -> str:
    return re.sub(r"\blayers\.\d+\.(?!weight|bias)", "layers.*.", name)


def print_boundary_sources(
    streams: Sequence[str], rows: Mapping[str, tuple[int, int]], parts: SignLlavaParts
) -> None:
    """Where each stream's boundary vectors come from."""
    for stream in streams:
        if stream in rows:
            opening, closing = rows[stream]
            info(f"boundary vectors of {stream}: rows {opening} and {closing} of {parts.embeddings_source}")
        else:
            info(f"boundary vectors of {stream}: newly drawn with run.seed, at the spread of the LLM's embeddings")
    if len(rows) < len(streams):
        warning(
            "newly drawn boundary vectors have learnt nothing yet: a short pretrain from this projector teaches them."
        )


def say_layouts(layouts: Mapping[str, str], recipe: Recipe) -> None:
    """Which features the projectors were trained on, as far as it can be known."""
    for stream, layout in layouts.items():
        if layout == SIGN_LLAVA:
            warning(
                f"{stream}: {recipe.streams[stream].width} numbers: Sign_LLaVA's pose normalization, not what "
                f"`prepare pack` makes, whose features are refused (layout {SIGN_LLAVA}, docs/checkpoints.md). If it "
                f"was trained on another layout, --set streams.{stream}.layout=NAME."
            )
        else:
            info(f"{stream}: trained on features of layout {layout}")
    if unknown := [stream for stream in recipe.streams if stream not in layouts]:
        info(f"trained on features of a layout that no tensor tells: {', '.join(unknown)}")


@torch.no_grad()
def warn_about_changed_embeddings(parts: SignLlavaParts, table: Tensor, recipe: Recipe) -> None:
    """Sign_LLaVA could train the whole table: then its words are not those of the LLM."""
    if parts.embeddings is None or len(parts.embeddings) < len(table):
        return
    changed = 0
    for start in range(0, len(table), ROWS_PER_CHUNK):
        ours = table[start : start + ROWS_PER_CHUNK].float().cpu()
        theirs = parts.embeddings[start : start + len(ours)].float()
        changed += int((~torch.isclose(ours, theirs, rtol=0.02, atol=1e-4)).any(dim=1).sum())
    if changed:
        warning(
            f"{changed} of {len(table)} rows of {parts.embeddings_source} are not those of {recipe.llm.path}: the "
            "words were trained too, or this is another LLM. Checkpoints of ours hold no words, so this one will "
            "translate differently."
        )
