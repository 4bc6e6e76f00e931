"""Prints what a conversion read, what each tensor was converted to, and which differences to expect."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.sign_llava_pose import SIGN_LLAVA
from signllava_cli.errors import escape_unprintable, format_count, summarize_names
from signllava_cli.model.sign_llava_file import SignLlavaCheckpoint
from signllava_cli.model.sign_llava_tensors import SignLlavaParts
from signllava_cli.recipe import Recipe

ROWS_PER_CHUNK = 4096  # of two embedding tables that are compared


def print_source(original: SignLlavaCheckpoint, recipe: Recipe, converted: Recipe, parts: SignLlavaParts) -> None:
    """Print the files, and the values of `recipe` that they override."""
    for file in original.files:
        info(f"read {file}")
    if original.ignored:
        info(f"entries that are not tensors: {summarize_names(original.ignored)}; not converted")
    for stream in [name for name in recipe.streams if name not in converted.streams]:
        reason = "--streams omits it" if stream in parts.projectors else "the file has no projector for it"
        info(f"recipe: streams.{stream}: removed, because {reason}")
    before, after = recipe.to_flat_dict(), converted.to_flat_dict()
    for key, value in after.items():
        if key not in before:
            info(f"recipe: {key}: {value}")
        elif before[key] != value:
            info(f"recipe: {key}: {before[key]} -> {value}")
    if recipe.lora.enabled:
        info(f"recipe: lora.lora_alpha: {converted.lora.lora_alpha:g} is kept, because no tensor has it")
    in_file, in_recipe = [name for name in parts.projectors if name in converted.streams], list(converted.streams)
    if in_file != in_recipe:
        warning(
            f"Sign_LLaVA joined the streams in the order {', '.join(in_file)}; this checkpoint joins them "
            f"in the order {', '.join(in_recipe)}. --streams {','.join(in_file)} keeps the order of Sign_LLaVA."
        )


def print_tensor_mapping(
    original: SignLlavaCheckpoint,
    parts: SignLlavaParts,
    streams: Sequence[str],
    rows: Mapping[str, tuple[int, int]],
    recipe: Recipe,
) -> None:
    """Print a table of every source tensor and what it was converted to; equal layers of the LLM share a row."""
    targets: dict[str, str] = {}
    for stream, projector in parts.projectors.items():
        for name, source in projector.sources.items():
            targets[source] = f"{stream}.{name}" if stream in streams else "ignored: --streams omits it"
    for name, source in parts.adapter_sources.items():
        targets[source] = (
            f"adapter, {name}" if recipe.lora.enabled else "ignored: lora.enabled is false in the recipe"
        )
    if parts.embeddings_source is not None:
        used = sorted({row for pair in rows.values() for row in pair})
        targets[parts.embeddings_source] = f"rows {used} to boundary vectors" if used else "ignored: no row is used"
    counts: dict[tuple[str, str, str], int] = {}
    for name, tensor in original.tensors.items():
        target = targets.get(name, "ignored: part of the LLM, which is loaded from llm.path")
        shape = f"{str(tensor.dtype).removeprefix('torch.')} {' x '.join(map(str, tensor.shape))}"
        key = (_generalize_layer(escape_unprintable(name)), shape, _generalize_layer(target))
        counts[key] = counts.get(key, 0) + 1
    print_table(
        format_count(len(original.tensors), "tensor"),
        ["tensor", "count", "type", "converted to"],
        [[name, count, shape, target] for (name, shape, target), count in counts.items()],
    )
    if parts.adapter and not recipe.lora.enabled:
        warning(
            "the adapter is not converted, and without it the LLM is not the one that these projectors were last "
            "trained with; --recipe finetune converts it too."
        )


def _generalize_layer(name: str) -> str:
    return re.sub(r"\blayers\.\d+\.(?!weight|bias)", "layers.*.", name)


def print_boundary_sources(
    streams: Sequence[str], rows: Mapping[str, tuple[int, int]], parts: SignLlavaParts
) -> None:
    """Print the source of each stream's boundary vectors."""
    for stream in streams:
        if stream in rows:
            start, end = rows[stream]
            info(f"boundary vectors of {stream}: rows {start} and {end} of {parts.embeddings_source}")
        else:
            info(
                f"boundary vectors of {stream}: newly initialized with run.seed and the standard deviation of the "
                "LLM's embeddings"
            )
    if len(rows) < len(streams):
        warning(
            "newly initialized boundary vectors are untrained; train them with a short pretrain from this projector."
        )


def print_layouts(layouts: Mapping[str, str], recipe: Recipe) -> None:
    """Print the layouts of the features that the projectors were trained on."""
    for stream, layout in layouts.items():
        if layout == SIGN_LLAVA:
            warning(
                f"{stream}: {recipe.streams[stream].width} numbers: assumed to have Sign_LLaVA's pose normalization "
                f"(layout {SIGN_LLAVA}, docs/checkpoints.md); features of `prepare pack` are refused. If it "
                f"was trained on another layout, --set streams.{stream}.layout=NAME."
            )
        else:
            info(f"{stream}: trained on features of layout {layout}")
    if unknown := [stream for stream in recipe.streams if stream not in layouts]:
        info(f"trained on features of unknown layout: {', '.join(unknown)}")


@torch.no_grad()
def warn_about_changed_embeddings(parts: SignLlavaParts, table: Tensor, recipe: Recipe) -> None:
    """Warn if embeddings differ from those of the LLM: Sign_LLaVA could train the whole table."""
    if parts.embeddings is None or len(parts.embeddings) < len(table):
        return
    changed = 0
    for start in range(0, len(table), ROWS_PER_CHUNK):
        rows = table[start : start + ROWS_PER_CHUNK].float().cpu()
        trained_rows = parts.embeddings[start : start + len(rows)].float()
        changed += int((~torch.isclose(rows, trained_rows, rtol=0.02, atol=1e-4)).any(dim=1).sum())
    if changed:
        warning(
            f"{changed} of {len(table)} rows of {parts.embeddings_source} differ from those of {recipe.llm.path}: "
            "the embeddings were trained too, or llm.path is another LLM. The checkpoint has no embeddings, so its "
            "translations will differ from Sign_LLaVA's."
        )
