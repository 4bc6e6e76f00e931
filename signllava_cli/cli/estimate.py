"""The options `--estimate` and `--gpu`, and how an estimate is printed."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from signllava_cli import console
from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError

if TYPE_CHECKING:
    from signllava_cli.generation.decoding_estimate import DecodingEstimate
    from signllava_cli.recipe import Recipe, Stage
    from signllava_cli.training.training_estimate import TrainingEstimate

PANEL = "Estimate"
EstimateOption = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="Print parameters, FLOPs, memory and hours on a GPU, from the recipe and the config of the LLM alone; "
        "nothing is loaded or run.",
        rich_help_panel=PANEL,
    ),
]
GPUOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|SIZE",
        help="With --estimate: h100-80gb (the default), another GPU, or a memory size such as 24GiB.",
        rich_help_panel=PANEL,
    ),
]
GIB = 2**30
CONSEQUENCE = "the tokens of texts are assumed"


def require_estimate(estimate: bool, gpu: str | None) -> None:
    """Check that `--gpu` is not given without `--estimate`.

    Raises:
        UserError: it is.
    """
    if not estimate and gpu is not None:
        raise UserError("--gpu has no effect without --estimate; add it.")


def print_training_estimate(recipe: "Recipe", stage: "Stage", gpu: str | None) -> None:
    """Estimate the training of `recipe`, and print it.

    Raises:
        UserError: the recipe is not one of this stage, the GPU is unknown, or there is no estimate for the LLM.
    """
    from signllava_cli.model.gpus import DEFAULT_GPU, find_gpu
    from signllava_cli.recipe import require_stage

    require_stage(recipe, stage)
    chosen = find_gpu(gpu or DEFAULT_GPU)
    console.info(f"estimating {stage} on {chosen.name}: counts the operations of a step, which takes a while")
    from signllava_cli.model.llm import read_llm_config
    from signllava_cli.training.training_estimate import estimate_training

    read_llm_config(recipe.llm)  # refuses an LLM that is missing before a warning about its tokenizer
    estimate = estimate_training(recipe, chosen, load_prompts(recipe, CONSEQUENCE))
    if console.is_json():
        console.print_document(asdict(estimate))
    else:
        _print_training(recipe, estimate)


def print_decoding_estimate(recipe: "Recipe", gpu: str | None) -> None:
    """Estimate the generation of `recipe`, and print it.

    Raises:
        UserError: the GPU is unknown, or there is no estimate for the LLM.
    """
    from signllava_cli.model.gpus import DEFAULT_GPU, find_gpu

    chosen = find_gpu(gpu or DEFAULT_GPU)
    console.info(f"estimating generate on {chosen.name}: counts the operations of decoding, which takes a while")
    from signllava_cli.generation.decoding_estimate import estimate_decoding
    from signllava_cli.model.llm import read_llm_config

    read_llm_config(recipe.llm)
    estimate = estimate_decoding(recipe, chosen, load_prompts(recipe, CONSEQUENCE))
    if console.is_json():
        console.print_document(asdict(estimate))
    else:
        _print_decoding(recipe, estimate)


def _print_training(recipe: "Recipe", estimate: "TrainingEstimate") -> None:
    from signllava_cli.console import print_line, print_table

    batch = f"{estimate.batch_clips} x {estimate.batch_len:,} = {estimate.batch_clips * estimate.batch_len:,} tokens"
    rows = [
        ["parameters of the LLM, frozen", f"{estimate.llm_parameters:,}"],
        ["of projectors and boundary vectors", f"{estimate.projector_parameters:,}"],
        ["of the adapter", f"{estimate.adapter_parameters:,}"],
        ["largest micro-batch", batch],
        ["FLOPs per token", f"{estimate.flops_per_token:.3g}"],
        ["with gradient checkpointing", f"{estimate.recomputed_flops_per_token:.3g}"],
        ["FLOPs per step", f"{estimate.flops_per_step:.3g}"],
        ["steps", f"{estimate.num_steps:,}"],
        ["FLOPs of the run", f"{estimate.flops:.3g}"],
        ["padding", "unknown" if estimate.padding is None else f"{100 * estimate.padding:.0f} %"],
        ["hours, assumed", _format_hours(estimate.hours, estimate.num_processes)],
        ["tokens/s", "unknown" if estimate.tokens_per_second is None else f"{estimate.tokens_per_second:,.0f}"],
    ]
    print_table(f"Estimate for {estimate.gpu}", ["", "estimate"], rows)
    kinds = [
        ("weights of the LLM", "llm"),
        ("projectors and adapter", "trained"),
        ("gradients", "gradients"),
        ("AdamW's state", "optimizer"),
        ("DDP's buckets", "buckets"),
        ("prefix cache", "prefix"),
        ("activations", "activations"),
        ("logits of a chunk, or a layer's backward", "working"),
        ("peak", "peak"),
    ]
    memory = [[label, *(_gib(getattr(each, name)) for each in estimate.memory)] for label, name in kinds]
    memory += [
        ["usable", *[_gib(estimate.usable_memory)] * 2],
        ["fits", *("yes" if each.fits else "no" for each in estimate.memory)],
        ["largest max_tokens_per_batch", *(f"{each.max_tokens_per_batch:,}" for each in estimate.memory)],
    ]
    is_on = recipe.train.gradient_checkpointing
    title = f"Memory of a rank in GiB (train.gradient_checkpointing is {str(is_on).lower()})"
    print_table(title, ["", "without checkpointing", "with checkpointing"], memory)
    print_line(f"sequences: {estimate.workload}")
    if estimate.hours is not None and estimate.utilization:
        print_line(
            f"hours: at an assumed {estimate.utilization:.0%} of the GPU's dense bfloat16 FLOP/s, on "
            f"{estimate.num_processes} of them; `--dry-run` measures"
        )


def _print_decoding(recipe: "Recipe", estimate: "DecodingEstimate") -> None:
    from signllava_cli.console import print_line, print_table

    memory = estimate.memory
    rows: Sequence[Sequence[str]] = [
        ["parameters of the LLM", f"{estimate.llm_parameters:,}"],
        ["of projectors and adapter", f"{estimate.trained_parameters:,}"],
        ["batch of the longest prompts", f"{estimate.batch_clips} x {estimate.prompt_len:,} tokens"],
        ["hypotheses per clip", str(estimate.num_hypotheses)],
        ["FLOPs of prompts", f"{estimate.prefill_flops:.3g}"],
        ["FLOPs of new tokens", f"{estimate.decoding_flops:.3g}"],
        ["hours, assumed", _format_hours(estimate.hours, estimate.num_processes)],
    ]
    print_table(f"Estimate for {estimate.gpu}", ["", "estimate"], rows)
    memory_rows = [
        ["weights of the LLM", _gib(memory.llm)],
        ["projectors and adapter", _gib(memory.trained)],
        ["KV cache of prompts", _gib(memory.prompt_kv)],
        ["KV cache of new tokens", _gib(memory.token_kv)],
        ["reading prompts, or choosing tokens", _gib(memory.working)],
        ["peak", _gib(estimate.peak)],
        ["usable", _gib(estimate.usable_memory)],
        ["fits", "yes" if estimate.fits else "no"],
        ["largest generate.batch_size", f"{estimate.max_batch_size:,}"],
        ["largest generate.max_tokens_per_batch", f"{estimate.max_tokens_per_batch:,}"],
    ]
    print_table("Memory of a process in GiB", ["", "GiB"], memory_rows)
    print_line(f"sequences: {estimate.workload}")
    if estimate.hours is not None and estimate.utilization and estimate.bandwidth_share:
        print_line(
            f"hours: at an assumed {estimate.utilization:.0%} of the GPU's dense bfloat16 FLOP/s for prompts and "
            f"{estimate.bandwidth_share:.0%} of its bandwidth for new tokens"
        )


def _format_hours(hours: float | None, num_processes: int) -> str:
    if hours is None:
        return "unknown"
    gpus = "1 GPU" if num_processes == 1 else f"{num_processes} GPUs"
    return f"{hours:,.1f} on {gpus}" if hours >= 1 else f"{hours * 60:.1f} minutes on {gpus}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f}"
