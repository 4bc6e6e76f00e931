"""Merges the adapter of a checkpoint into a copy of its LLM."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from signllava_cli.console import info, warning
from signllava_cli.errors import UserError
from signllava_cli.files import atomic_folder, write_json, write_link
from signllava_cli.model.checkpoint import (
    ADAPTER,
    PROGRESS,
    PROJECTOR,
    library_versions,
    load_projectors,
    read_config,
    write_checkpoint,
)
from signllava_cli.model.hub_access import hub_options
from signllava_cli.model.llm import llm_identity, load_llm, load_tokenizer, local_llm_folder, require_same_llm
from signllava_cli.model.llm_folder import require_empty_folder
from signllava_cli.model.lora import add_lora, load_adapter
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import LLM, Recipe, build_recipe

MERGED_LLM = "llm"
CPU = torch.device("cpu")


def merge(checkpoint: Path, recipe: Recipe, out: Path, dtype: str) -> None:
    """Write the LLM with the merged adapter of `checkpoint`, and a checkpoint of that LLM with the same projectors.

    `out` becomes a run folder with one checkpoint, `step-N`, which is also `best`; the LLM is the Hugging Face folder
    `out/llm`.

    Args:
        recipe: of the checkpoint.
        dtype: of the merged LLM: bfloat16, float16 or float32.

    Raises:
        UserError: the checkpoint has no adapter, or the LLM is another one; `out` is not empty, or its disk is too
            small; a merged weight is not finite in `dtype`.
    """
    config = read_config(checkpoint)
    if not recipe.lora.enabled:
        raise UserError(
            f"{checkpoint} is of stage {config.stage} and has no adapter to merge; name a finetune checkpoint."
        )
    require_empty_folder(out)
    tokenizer, weight_dtype = load_tokenizer(recipe.llm), getattr(torch, dtype)
    stored_config = build_recipe(
        recipe.to_dict(), _precision_overrides(_stored_dtype(tokenizer.name_or_path, recipe.llm))
    ).llm
    llm = load_llm(stored_config, CPU)
    require_same_llm(config.llm, llm_identity(llm, stored_config, local_llm_folder(stored_config)), checkpoint)
    _require_mergeable(llm, recipe)
    _require_disk_space(out, sum(weight.numel() for weight in llm.parameters()) * weight_dtype.itemsize)
    llm = add_lora(llm, recipe.lora)
    load_adapter(llm, checkpoint / ADAPTER)
    llm = merge_adapter(llm, weight_dtype)
    merged_recipe = _merged_recipe(recipe, out / MERGED_LLM, dtype)
    model = SignLlavaModel(llm, merged_recipe.streams, merged_recipe.run.seed)
    load_projectors(model, checkpoint / PROJECTOR)
    step = f"step-{config.step:06d}"
    with atomic_folder(out) as folder:
        llm.save_pretrained(folder / MERGED_LLM)
        tokenizer.save_pretrained(folder / MERGED_LLM)
        identity = llm_identity(llm, merged_recipe.llm, folder / MERGED_LLM)
        merged_config = dataclasses.replace(config, stage="merged", llm=identity, versions=library_versions())
        (folder / step).mkdir()
        weights = {name: weight.detach() for name, weight in model.trainable_parameters().items()}
        write_checkpoint(folder / step, model, weights, merged_config, merged_recipe)
        write_json(folder / step / PROGRESS, {"step": config.step})
        write_link(folder / "best", step)
    info(f"LLM with the merged adapter, {dtype}: {out / MERGED_LLM}")
    info(f"checkpoint for this LLM: {out / step}")
    if recipe.llm.bits in (4, 8):
        warning(
            f"the adapter was trained on the LLM in {recipe.llm.bits} bits and merged into one of "
            f"{merged_recipe.llm.bits} bits, so hypotheses differ slightly; compare the dev scores of both."
        )


@torch.no_grad()
def merge_adapter(llm: Any, dtype: torch.dtype) -> Any:
    """The LLM of a PeftModel in `dtype`, with the adapter added to its weights.

    Each sum is computed in float32, one layer (or the experts of one layer) at a time, and rounded once.

    Raises:
        UserError: a weight is not finite in `dtype`.
    """
    from peft.tuners.lora import LoraLayer

    for layer in llm.modules():
        if isinstance(layer, LoraLayer):
            weight = getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"))  # or of experts
            weight.data = weight.data.float()
            layer.merge()
            weight.data = weight.data.to(dtype)
    llm = llm.unload().to(dtype)
    for name, weight in llm.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"{name} is not finite in {str(dtype).removeprefix('torch.')}; choose another --dtype.")
    return llm


def _stored_dtype(location: str, config: LLM) -> str:
    """The dtype of the LLM on disk, in which loading neither rounds weights nor takes more memory."""
    from transformers import AutoConfig

    with hub_options(location) as options:
        llm_config = AutoConfig.from_pretrained(location, revision=config.revision, **options)
    dtype = str(llm_config.dtype).removeprefix("torch.")
    return dtype if dtype in ("bfloat16", "float16") else "float32"


def _precision_overrides(dtype: str) -> list[str]:
    return [f"llm.bits={32 if dtype == 'float32' else 16}", f"llm.dtype={dtype}"]


def _merged_recipe(recipe: Recipe, llm: Path, dtype: str) -> Recipe:
    """`recipe` for the merged LLM."""
    path = json.dumps(str(llm.expanduser().resolve()))
    overrides = [f"llm.path={path}", "llm.revision=null", "lora.enabled=false", "init.projector=null"]
    return build_recipe(recipe.to_dict(), [*overrides, *_precision_overrides(dtype)])


def _require_mergeable(llm: Any, recipe: Recipe) -> None:
    if getattr(llm, "is_quantized", False):
        raise UserError(
            f"llm.path: {recipe.llm.path} is stored quantized; set it to the 16-bit LLM from which it was made."
        )


def _require_disk_space(out: Path, size: int) -> None:
    """Check that the disk of `out` has `size` bytes free, before any work is done."""
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(
            f"{out} needs {size / 1e9:.1f} GB, but {existing} has {free / 1e9:.1f} GB free; choose another --out."
        )
