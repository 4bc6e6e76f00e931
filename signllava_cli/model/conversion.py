"""Converts a Sign_LLaVA checkpoint to a signllava checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.files import atomic_folder, write_json
from signllava_cli.model.checkpoint import PROGRESS, CheckpointConfig, library_versions, write_checkpoint
from signllava_cli.model.conversion_report import (
    print_boundary_sources,
    print_layouts,
    print_source,
    print_tensor_mapping,
    warn_about_changed_embeddings,
)
from signllava_cli.model.layouts import infer_layouts
from signllava_cli.model.llm import require_same_tensors
from signllava_cli.model.llm_folder import require_empty_folder
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.sign_llava_file import read_sign_llava
from signllava_cli.model.sign_llava_tensors import LORA, SignLlavaParts, parse_tensors
from signllava_cli.recipe import ALL_LINEAR, Recipe, build_recipe


@dataclass(frozen=True)
class BoundaryRows:
    """The embedding rows that become boundary vectors.

    `rows`: stream -> the rows of its start and end vectors. Other streams get the two markers of Sign_LLaVA if the
    file has them, unless `ignore_markers`; without rows, boundary vectors are newly initialized.
    """

    rows: Mapping[str, tuple[int, int]]
    ignore_markers: bool = False


def convert(
    source: Path,
    recipe: Recipe,
    out: Path,
    order: Sequence[str] | None = None,
    boundaries: BoundaryRows | None = None,
) -> None:
    """Convert the Sign_LLaVA checkpoint `source` to the new checkpoint folder `out`, and print what was converted.

    Streams, their widths and layers, and the adapter's shape come from the tensors, everything else from `recipe`.

    Args:
        order: the streams to convert, in this order; by default in the order of the recipe, then of the file.
        boundaries: by default Sign_LLaVA's markers, if the file has them.

    Raises:
        UserError: the source cannot be converted, or is not of the recipe's LLM; `out` is not empty.
    """
    require_empty_folder(out)
    _require_plain_projectors(recipe)
    boundaries = boundaries or BoundaryRows({})
    original = read_sign_llava(source)
    parts = parse_tensors(original.tensors, original.files[0])
    streams = _select_streams(parts, recipe, order)
    converted = _fit_recipe(recipe, parts, streams)
    print_source(original, recipe, converted, parts)
    bundle = load_model_bundle(converted, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    hidden = bundle.llm_identity["hidden_size"]
    if parts.hidden_size != hidden:
        raise UserError(
            f"{original.files[0]} projects to embeddings of {parts.hidden_size} numbers, but "
            f"{converted.llm.path} has {hidden}; set llm.path to the LLM it was trained with."
        )
    table = bundle.model.llm.get_input_embeddings().weight
    rows = _boundary_rows(parts, len(table), streams, boundaries)
    _load_weights(bundle, parts, streams, rows, original.files[0])
    print_tensor_mapping(original, parts, streams, rows, converted)
    print_boundary_sources(streams, rows, parts)
    layouts = _find_layouts(recipe, converted)
    warn_about_changed_embeddings(parts, table, converted)
    config = CheckpointConfig(
        stage="finetune" if converted.lora.enabled else "pretrain",
        step=original.step,
        llm=bundle.llm_identity,
        turns=bundle.prompts.turns,
        data=f"converted from {original.files[0].name}, SHA-256 {original.digest[:16]}",
        versions=library_versions(),
        layouts=layouts,
    )
    weights = {name: weight.detach().cpu() for name, weight in bundle.model.trainable_parameters().items()}
    with atomic_folder(out) as folder:
        write_checkpoint(folder, bundle.model, weights, config, converted)
        write_json(folder / PROGRESS, {"step": original.step})
    info(f"{config.stage} checkpoint of step {original.step} in {out}")


def _require_plain_projectors(recipe: Recipe) -> None:
    """Check that the projectors of the recipe are such as Sign_LLaVA has: one embedding per frame of one stream."""
    keys = [
        f"streams.{name}.{key}"
        for name, stream in recipe.streams.items()
        for key, plain in (("stack", 1), ("conv", None), ("join", None))
        if getattr(stream, key) != plain
    ]
    if keys:
        raise UserError(
            f"{', '.join(keys)}: Sign_LLaVA has no such projectors; remove the setting to convert its file."
        )


def _select_streams(parts: SignLlavaParts, recipe: Recipe, order: Sequence[str] | None) -> list[str]:
    if order is None:
        in_recipe = [stream for stream in recipe.streams if stream in parts.projectors]
        return [*in_recipe, *(stream for stream in parts.projectors if stream not in in_recipe)]
    unknown = [stream for stream in order if stream not in parts.projectors]
    if unknown or len(set(order)) != len(order) or not order:
        raise UserError(
            f"--streams {','.join(order)}: name streams of the file, each once: {', '.join(parts.projectors)}."
        )
    return list(order)


def _fit_recipe(recipe: Recipe, parts: SignLlavaParts, streams: Sequence[str]) -> Recipe:
    """`recipe` with the streams and the adapter's shape of the tensors."""
    values = recipe.to_dict()
    values["init"]["projector"] = None
    values["streams"] = {
        stream: {
            **values["streams"].get(stream, {}),
            "width": parts.projectors[stream].width,
            "projector": parts.projectors[stream].kind,
            "normalize_input": False,
            "normalize_output": False,
            "layout": None,  # the user's layout is that of the training data, not of other data
        }
        for stream in streams
    }
    if recipe.lora.enabled:
        if not parts.adapter:
            raise UserError("lora.enabled: the file has no adapter; use a pretrain recipe, or set it to false.")
        values["lora"]["r"] = parts.adapter_rank
        targets = recipe.lora.target_modules
        if targets == ALL_LINEAR or set(parts.adapter_targets) != set(targets):
            values["lora"]["target_modules"] = parts.adapter_targets
    return build_recipe(values)


def _find_layouts(recipe: Recipe, converted: Recipe) -> dict[str, str]:
    """The layouts that the projectors were trained on: those of `recipe`, else by the width of the stream."""
    recipe_layouts = {name: stream.layout for name, stream in recipe.streams.items()}
    layouts = infer_layouts(
        {name: (stream.width, recipe_layouts.get(name)) for name, stream in converted.streams.items()}
    )
    print_layouts(layouts, converted)
    return layouts


def _boundary_rows(
    parts: SignLlavaParts, vocabulary: int, streams: Sequence[str], boundaries: BoundaryRows
) -> dict[str, tuple[int, int]]:
    """Stream -> the embedding rows of its start and end vectors, for the streams that have rows in the file."""
    unknown = [stream for stream in boundaries.rows if stream not in streams]
    if unknown:
        raise UserError(f"--boundary-rows {unknown[0]}: not a converted stream; these are: {', '.join(streams)}.")
    if parts.embeddings is None:
        if boundaries.rows:
            raise UserError(
                "--boundary-rows: the file has no embedding rows (embed_tokens.weight); remove the option."
            )
        return {}
    count = len(parts.embeddings)
    for stream, pair in boundaries.rows.items():
        if max(pair) >= count:
            raise UserError(
                f"--boundary-rows {stream}: row {max(pair)} is outside of the table, which has rows 0 to {count - 1}."
            )
    # the markers are the last two rows of an extended table, or a table of their own
    has_markers = count == 2 or count >= vocabulary + 2
    markers = (count - 2, count - 1)
    default = dict.fromkeys(streams, markers) if has_markers and not boundaries.ignore_markers else {}
    return {**default, **boundaries.rows}


def _load_weights(
    bundle: ModelBundle,
    parts: SignLlavaParts,
    streams: Sequence[str],
    rows: Mapping[str, tuple[int, int]],
    file: Path,
) -> None:
    """Copy the converted tensors into the model; boundary vectors without rows keep their initial values."""
    model = bundle.model
    weights: dict[str, Tensor] = model.projectors.state_dict()
    for stream in streams:
        weights |= {f"{stream}.{name}": tensor for name, tensor in parts.projectors[stream].layers.items()}
        if stream in rows and parts.embeddings is not None:
            boundary = parts.embeddings[list(rows[stream])]
            if not torch.isfinite(boundary).all():
                raise UserError(
                    f"{file}: rows {rows[stream]} of {parts.embeddings_source} are not finite; name others with "
                    "--boundary-rows."
                )
            weights[f"{stream}.boundary"] = boundary
    model.projectors.load_state_dict(weights, strict=True)
    adapter = {
        match[1]: weight
        for name, weight in model.llm.named_parameters()
        if (match := LORA.fullmatch(name)) is not None
    }
    if adapter:
        require_same_tensors(parts.adapter, adapter, file)
        with torch.no_grad():
            for name, weight in adapter.items():
                weight.copy_(parts.adapter[name])
