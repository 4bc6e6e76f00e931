"""Makes a checkpoint of ours out of one of Sign_LLaVA."""

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
    print_source,
    print_tensor_mapping,
    say_layouts,
    warn_about_changed_embeddings,
)
from signllava_cli.model.layouts import layouts_of_conversion
from signllava_cli.model.llm import require_same_tensors
from signllava_cli.model.llm_folder import require_empty_folder
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.sign_llava_file import read_sign_llava
from signllava_cli.model.sign_llava_tensors import LORA, SignLlavaParts, parse_tensors
from signllava_cli.recipe import Recipe, build_recipe


@dataclass(frozen=True)
class BoundaryRows:
    """Where boundary vectors come from.

    `rows`: of some streams, which two embedding rows (opening, closing). The other streams have Sign_LLaVA's
    own two markers, where the file holds them, or, if `fresh`, newly drawn vectors.
    """

    rows: Mapping[str, tuple[int, int]]
    fresh: bool = False


def convert(
    source: Path,
    recipe: Recipe,
    out: Path,
    order: Sequence[str] | None = None,
    boundaries: BoundaryRows | None = None,
) -> None:
    """Write the Sign_LLaVA checkpoint `source` as a checkpoint of ours into the new folder `out`, and say what it held.

    The streams, widths, layers and the adapter's shape are those of the tensors, everything else is the recipe's.

    Args:
        order: the streams to convert, in this order; by default the recipe's order, then the file's.
        boundaries: by default Sign_LLaVA's markers where the file has them.

    Raises:
        UserError: the source cannot be converted, or does not fit the LLM; `out` is not empty.
    """
    require_empty_folder(out)
    boundaries = boundaries or BoundaryRows({})
    found = read_sign_llava(source)
    parts = parse_tensors(found.tensors, found.files[0])
    streams = _streams(parts, recipe, order)
    fitted = _fit_recipe(recipe, parts, streams)
    print_source(found, recipe, fitted, parts)
    bundle = load_model_bundle(fitted, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    hidden = bundle.llm["hidden_size"]
    if parts.hidden != hidden:
        raise UserError(
            f"{found.files[0]} projects to embeddings of {parts.hidden} numbers and {fitted.llm.path} has {hidden}; "
            "set llm.path to the LLM it was trained with."
        )
    table = bundle.model.llm.get_input_embeddings().weight
    rows = _boundary_rows(parts, len(table), streams, boundaries)
    _load_weights(bundle, parts, streams, rows, found.files[0])
    print_tensor_mapping(found, parts, streams, rows, fitted)
    print_boundary_sources(streams, rows, parts)
    layouts = _layouts(recipe, fitted)
    warn_about_changed_embeddings(parts, table, fitted)
    config = CheckpointConfig(
        stage="finetune" if fitted.lora.enabled else "pretrain",
        step=found.step,
        llm=bundle.llm,
        turns=bundle.prompts.turns,
        data=f"converted from {found.files[0].name}, SHA-256 {found.digest[:16]}",
        versions=library_versions(),
        layouts=layouts,
    )
    weights = {name: weight.detach().cpu() for name, weight in bundle.model.trained_parameters().items()}
    with atomic_folder(out) as folder:
        write_checkpoint(folder, bundle.model, weights, config, fitted)
        write_json(folder / PROGRESS, {"step": found.step})
    info(f"{config.stage} checkpoint of step {found.step} in {out}")


def _streams(parts: SignLlavaParts, recipe: Recipe, order: Sequence[str] | None) -> list[str]:
    if order is None:
        named = [stream for stream in recipe.streams if stream in parts.projectors]
        return [*named, *(stream for stream in parts.projectors if stream not in named)]
    unknown = [stream for stream in order if stream not in parts.projectors]
    if unknown or len(set(order)) != len(order) or not order:
        raise UserError(
            f"--streams {','.join(order)}: name each once, of those in the file: {', '.join(parts.projectors)}."
        )
    return list(order)


def _fit_recipe(recipe: Recipe, parts: SignLlavaParts, streams: Sequence[str]) -> Recipe:
    """`recipe` with the streams and the adapter's shape that the tensors have."""
    settings = recipe.to_dict()
    settings["init"]["projector"] = None
    settings["streams"] = {
        stream: {
            **settings["streams"].get(stream, {}),
            "width": parts.projectors[stream].width,
            "projector": parts.projectors[stream].kind,
            "normalize_input": False,
            "normalize_output": False,
            "layout": None,  # what the user says of the checkpoint's training data is not said of other data
        }
        for stream in streams
    }
    if recipe.lora.enabled:
        if not parts.adapter:
            raise UserError("lora.enabled: the file holds no adapter; use a pretrain recipe, or set it to false.")
        settings["lora"]["r"] = parts.adapter_rank
        if set(parts.adapter_targets) != set(recipe.lora.target_modules):
            settings["lora"]["targets"] = parts.adapter_targets
    return build_recipe(settings)


def _layouts(recipe: Recipe, fitted: Recipe) -> dict[str, str]:
    """What is known of the features that the projectors were trained on: what `recipe` says, else by their width."""
    said = {name: stream.layout for name, stream in recipe.streams.items()}
    layouts = layouts_of_conversion({name: (each.width, said.get(name)) for name, each in fitted.streams.items()})
    say_layouts(layouts, fitted)
    return layouts


def _boundary_rows(
    parts: SignLlavaParts, vocabulary: int, streams: Sequence[str], boundaries: BoundaryRows
) -> dict[str, tuple[int, int]]:
    """The embedding rows of the streams whose boundary vectors are in the file."""
    unknown = [stream for stream in boundaries.rows if stream not in streams]
    if unknown:
        raise UserError(f"--boundary-rows {unknown[0]}: no such stream; these are converted: {', '.join(streams)}.")
    if parts.embeddings is None:
        if boundaries.rows:
            raise UserError("--boundary-rows: the file holds no embedding rows (embed_tokens.weight).")
        return {}
    count = len(parts.embeddings)
    for stream, pair in boundaries.rows.items():
        if max(pair) >= count:
            raise UserError(f"--boundary-rows {stream}: row {max(pair)} of a table with rows 0 to {count - 1}.")
    # the markers are the last two rows: of a table that grew by them, or alone
    has_markers = count == 2 or count >= vocabulary + 2
    markers = (count - 2, count - 1)
    default = dict.fromkeys(streams, markers) if has_markers and not boundaries.fresh else {}
    return {**default, **boundaries.rows}


def _load_weights(
    bundle: ModelBundle,
    parts: SignLlavaParts,
    streams: Sequence[str],
    rows: Mapping[str, tuple[int, int]],
    where: Path,
) -> None:
    """Copy what is converted into the model; boundary vectors of no row stay as they were drawn."""
    model = bundle.model
    weights: dict[str, Tensor] = model.projectors.state_dict()
    for stream in streams:
        weights |= {f"{stream}.{name}": tensor for name, tensor in parts.projectors[stream].layers.items()}
        if stream in rows and parts.embeddings is not None:
            boundary = parts.embeddings[list(rows[stream])]
            if not torch.isfinite(boundary).all():
                raise UserError(f"{where}: rows {rows[stream]} of {parts.embeddings_source} are not finite.")
            weights[f"{stream}.boundary"] = boundary
    model.projectors.load_state_dict(weights, strict=True)
    adapter = {
        named[1]: weight
        for name, weight in model.llm.named_parameters()
        if (named := LORA.fullmatch(name)) is not None
    }
    if adapter:
        require_same_tensors(parts.adapter, adapter, where)
        with torch.no_grad():
            for name, weight in adapter.items():
                weight.copy_(parts.adapter[name])
