"""Writes a recipe for a dataset, an LLM and a GPU: streams, widths and splits found, batches that fit into memory."""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.errors import UserError, escape_unprintable, format_count, summarize_names
from signllava_cli.model.gpus import GPU
from signllava_cli.model.llm import load_tokenizer, read_llm_config
from signllava_cli.prepare.dataset_folder import list_splits, list_streams
from signllava_cli.prepare.indexing import open_index
from signllava_cli.processes import cpu_cores, repeat_option
from signllava_cli.recipe import Recipe, Stage, build_recipe, read_recipe, require_stage, shipped_variants
from signllava_cli.training.training_estimate import TrainingEstimate, estimate_training

MAX_SEQ_LEN = 2048
MIN_CLIPS_PER_BATCH = 4  # below that, gradient checkpointing is better than small micro-batches
MAX_TOKENS = {"pretrain": 8192, "finetune": 4096}  # larger micro-batches are not faster (docs/gpu.md)
MAX_WORKERS = 4
DEV_SPLITS = ("dev", "val", "valid", "validation", "test")
TEMPLATE = """\
# {title}
#
#   {command}
#
# `signllava recipes explain KEY` describes a setting; docs/recipe.md lists all.

run:
  output_dir: {output_dir}
  seed: 42

llm:
  path: {llm}
  bits: {bits}
  dtype: {dtype}

streams: # one after the other, in this order
{streams}

data:
  root: {root}
  train: {train}
  dev: {dev}
  missing: {missing} # {missing_reason}
  max_seq_len: {max_seq_len}
  num_workers: {num_workers}

context: # docs/context.md
  window: 2
  prelude: 2
{stage_sections}
train:
  num_train_epochs: {epochs}
  batch_size: {batch_size}
  micro_batch_size: 4 # of the dev loss
  max_tokens_per_batch: {max_tokens_per_batch}{batch_reason}
  learning_rate: {learning_rate}
  lr_scheduler_type: cosine
  weight_decay: 0.1
  label_smoothing: 0.1
  gradient_checkpointing: {gradient_checkpointing}
  torch_compile: {torch_compile}
  eval_steps: 500
  save_steps: 500
  save_total_limit: 2

generate:
  split: {test}
  context_source: gold
  num_beams: 5
  batch_size: 64
  max_tokens_per_batch: 65536
"""
FINETUNE_SECTIONS = """
lora:
  enabled: true
  r: 64
  lora_alpha: 16
  lora_dropout: 0.05

init:
  projector: {projector}
"""


@dataclass(frozen=True)
class RecipeRequest:
    """What a new recipe is for.

    `llm`: a folder or a hub id. `streams`: names in their order; empty for all that the training split has. `gpu`:
    None for a CPU. `projector`: of finetune, the run whose projectors it starts from. `file`: the recipe's own path,
    for the command in its first lines.
    """

    root: Path
    llm: str
    stage: Stage
    gpu: GPU | None
    file: Path
    streams: tuple[str, ...] = ()
    projector: str | None = None


@dataclass(frozen=True)
class NewRecipe:
    """The text of a recipe, and the recipe that it is.

    `splits`: name -> clips. `estimate`: None if the LLM's config is not at hand. `shipped_command`: trains by a
    shipped recipe that has streams of the same widths; empty if there is none.
    """

    text: str
    recipe: Recipe
    splits: dict[str, int]
    estimate: TrainingEstimate | None
    shipped_command: list[str]


@dataclass(frozen=True)
class _Dataset:
    """`splits`: name -> clips. `widths`: stream -> width. `num_incomplete`: clips of train that lack a stream."""

    splits: dict[str, int]
    widths: dict[str, int]
    num_incomplete: int


def make_recipe(request: RecipeRequest) -> NewRecipe:
    """The recipe of a request; the dataset is indexed first if needed.

    Raises:
        UserError: there is no dataset, it has no stream of that name, a stream has several widths, or no clip fits
            into the memory of the GPU.
    """
    dataset = _examine_dataset(request)
    has_llm_config = _has_config(request.llm)
    values = _values(request, dataset)
    recipe = build_recipe(yaml.safe_load(_fill(values)))
    estimate = None
    if request.gpu is not None and has_llm_config:
        estimate = estimate_training(recipe, request.gpu, PromptBuilder(load_tokenizer(recipe.llm), recipe.tasks))
        values |= _batch_values(request, estimate)
    text = _fill(values)
    recipe = build_recipe(yaml.safe_load(text))
    require_stage(recipe, request.stage)
    return NewRecipe(text, recipe, dataset.splits, estimate, _shipped_command(request, dataset.widths))


def _shipped_command(request: RecipeRequest, widths: dict[str, int]) -> list[str]:
    """The command that trains by a shipped recipe with streams of these widths; empty if there is none."""
    shipped = {name: read_recipe(name) for name in (request.stage, *_with_variants(request.stage))}
    same_streams = [
        name
        for name, recipe in shipped.items()
        if {key: each.width for key, each in recipe.streams.items()} == widths
    ]
    if not same_streams:
        return []
    name, settings = same_streams[0], [f"data.root={request.root}"]
    same_llm = [other for other, recipe in shipped.items() if recipe.llm.path == request.llm]
    if same_llm:
        name += same_llm[0].removeprefix(request.stage)
    else:
        settings.append(f"llm.path={request.llm}")
    projector = ["--projector", request.projector] if request.projector else []
    return ["signllava", request.stage, "--recipe", name, *projector, *repeat_option("--set", settings)]


def _with_variants(recipe: str) -> list[str]:
    """A shipped recipe with each of the shipped variants."""
    return [f"{recipe}+{variant}" for variant in shipped_variants()]


def _examine_dataset(request: RecipeRequest) -> _Dataset:
    splits = list_splits(request.root)
    train = splits[0]
    locations = list_streams(request.root, train)
    if not locations:
        raise UserError(
            f"{request.root} has no stream of split {train}: add one with `signllava prepare extract` or `pack`."
        )
    names = request.streams or tuple(locations)
    if unknown := [name for name in names if name not in locations]:
        raise UserError(
            f"{request.root} has no stream {summarize_names(unknown)} of split {train}; it has "
            f"{', '.join(locations)}."
        )
    sizes: dict[str, int] = {}
    for split in splits:
        there = list_streams(request.root, split)
        index = open_index(request.root, split, {name: there[name] for name in names if name in there})
        sizes[split] = len(index)
        if split == train:
            widths = {name: _find_width(name, index.widths(name).tolist()) for name in names}
            has_all = np.all([index.frame_counts(name) > 0 for name in names], axis=0)
            num_incomplete = int((~has_all).sum())
    return _Dataset(sizes, widths, num_incomplete)


def _find_width(name: str, widths: list[int]) -> int:
    counts = Counter(width for width in widths if width > 0)
    if len(counts) != 1:
        found = ", ".join(f"{width} ({format_count(count, 'clip')})" for width, count in counts.most_common(5))
        raise UserError(
            f"Stream {name} has no single width: {found or 'none'}; `signllava prepare check` names the clips."
        )
    return next(iter(counts))


def _has_config(llm: str) -> bool:
    try:
        read_llm_config(build_recipe({"llm": {"path": llm}, "streams": {"x": {"width": 1}}}).llm)
    except UserError:
        return False
    return True


def _values(request: RecipeRequest, dataset: _Dataset) -> dict[str, object]:
    """What the template holds; the sizes of batches are those of the shipped recipes."""
    is_finetune, on_gpu = request.stage == "finetune", request.gpu is not None
    splits = [*dataset.splits]
    dev = next((name for name in DEV_SPLITS if name in splits), splits[0])
    lines = [f"  {_yaml(name)}: {{width: {width}, projector: mlp2x_gelu}}" for name, width in dataset.widths.items()]
    projector = ["--projector", request.projector or ""] if is_finetune else []
    title = f"{request.stage} on {request.root}, {request.gpu.name if request.gpu else 'on the CPU'}."
    command = ["signllava", request.stage, "--recipe", str(request.file), *projector]
    return {
        "title": escape_unprintable(title),  # a line break would end the comment
        "command": escape_unprintable(shlex.join(command)),
        "output_dir": _yaml(f"runs/{request.file.stem}"),
        "llm": _yaml(request.llm),
        "bits": 4 if is_finetune else 16 if on_gpu else 32,
        "dtype": "bfloat16" if on_gpu else "float32",
        "streams": "\n".join(lines),
        "root": _yaml(str(request.root)),
        "train": _yaml(splits[0]),
        "dev": _yaml(dev),
        "missing": "skip" if dataset.num_incomplete else "error",
        "missing_reason": _missing_reason(dataset.num_incomplete, splits[0]),
        "max_seq_len": MAX_SEQ_LEN,
        "num_workers": min(MAX_WORKERS, cpu_cores()) if on_gpu else 0,
        "stage_sections": FINETUNE_SECTIONS.format(projector=_yaml(request.projector or "")) if is_finetune else "",
        "epochs": 10 if is_finetune else 40,
        "batch_size": min(64, dataset.splits[splits[0]]),
        "max_tokens_per_batch": MAX_TOKENS[request.stage],
        "batch_reason": "",
        "learning_rate": "2.0e-5" if is_finetune else "2.0e-3",
        "gradient_checkpointing": "false",
        "torch_compile": "true" if on_gpu else "false",
        "test": _yaml("test" if "test" in splits else dev),
    }


def _missing_reason(num_incomplete: int, train: str) -> str:
    if not num_incomplete:
        return f"no clip of {train} lacks a stream; one that does is an error"
    return f"{format_count(num_incomplete, 'clip')} of {train} without all streams"


def _batch_values(request: RecipeRequest, estimate: TrainingEstimate) -> dict[str, object]:
    """The size of micro-batches, and whether activations are stored, from the memory of the GPU."""
    stored, checkpointed = estimate.memory
    needed = min(MIN_CLIPS_PER_BATCH * MAX_SEQ_LEN, MAX_TOKENS[request.stage])
    memory = stored if stored.max_tokens_per_batch >= needed else checkpointed
    if not memory.max_tokens_per_batch:
        raise UserError(
            f"{request.llm} does not fit into {estimate.gpu} for {request.stage}: not even one clip of the greatest "
            "length does; choose a smaller LLM or a larger GPU."
        )
    return {
        "max_tokens_per_batch": min(memory.max_tokens_per_batch, MAX_TOKENS[request.stage]),
        "batch_reason": f" # at most {memory.max_tokens_per_batch:,} fit into {estimate.gpu}",
        "gradient_checkpointing": "true" if memory.gradient_checkpointing else "false",
    }


def _fill(values: dict[str, object]) -> str:
    return TEMPLATE.format_map(values)


def _yaml(text: str) -> str:
    """`text` as a YAML value, quoted if needed."""
    return str(yaml.safe_dump(text, width=10_000, allow_unicode=True)).removesuffix("\n").removesuffix("\n...")
