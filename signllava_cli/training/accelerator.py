"""Joining the processes that a launcher started, with the recipe's word on everything that the arithmetic needs."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs

from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe

SUPPORTED_TYPES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
)


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Join the processes that the launcher started.

    The profile says how many processes there are and how they share the work; precision, accumulation and clipping
    are the recipe's, whatever the launcher.

    Raises:
        UserError: a launcher that this package does not train under, a profile that contradicts the recipe, a pair
            that cannot work, or a batch that the ranks cannot share.
    """
    _require_consistent_profile(recipe)
    has_gpu = torch.cuda.is_available()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        accelerator = Accelerator(
            deepspeed_plugin=_deepspeed_plugin(recipe),
            kwargs_handlers=[] if has_gpu else [_gloo_backend()],
            mixed_precision="no",
        )
    else:
        # cpu: without it, ranks that find no GPU would each take themselves to be alone.
        accelerator = Accelerator(cpu=not has_gpu, mixed_precision="no")
    kind = accelerator.distributed_type
    if kind not in SUPPORTED_TYPES:
        raise UserError(
            f"The launcher's distributed type {kind.value} is not supported; use a profile of accelerate_configs/."
        )
    _require_divisible_batch(recipe, accelerator.num_processes)
    return accelerator


def distributed_type_name(accelerator: Accelerator) -> str:
    """The distributed type in words: `NO`, `MULTI_CPU`, `MULTI_GPU`, `DEEPSPEED ZeRO-2`."""
    plugin = accelerator.state.deepspeed_plugin
    return accelerator.distributed_type.value + (f" ZeRO-{plugin.zero_stage}" if plugin else "")


def _deepspeed_plugin(recipe: Recipe) -> DeepSpeedPlugin:
    """DeepSpeed as the profile describes it, with the recipe's clipping.

    DeepSpeed's own mixed precision stays off: it would train the projectors in 16 bits. The frozen LLM keeps its
    dtype, what is trained is float32, and gradients are summed in float32. Micro-batches are accumulated by the
    loop, which tells DeepSpeed where a step ends.

    Raises:
        UserError: the profile says otherwise, or asks for what cannot work.
    """
    try:
        plugin = DeepSpeedPlugin()
    except (ValueError, OSError) as error:
        raise UserError(f"The profile's DeepSpeed settings: {error}") from None
    config: dict[str, Any] = plugin.deepspeed_config
    zero = config["zero_optimization"]
    errors = [
        f"{key} is enabled, but llm.dtype decides the precision"
        for key in ("fp16", "bf16")
        if config.get(key, {}).get("enabled") is True
    ]
    errors += [
        f"`{key}` is set there, but it is the recipe's affair" for key in ("optimizer", "scheduler") if key in config
    ]
    if config.get("gradient_accumulation_steps", "auto") not in ("auto", 1):
        errors.append(
            f"gradient_accumulation_steps is {config['gradient_accumulation_steps']}, but train.batch_size and "
            "train.micro_batch_size decide it: leave it out"
        )
    clipping = config.get("gradient_clipping", "auto")
    if clipping != "auto" and clipping != (recipe.train.max_grad_norm or 0.0):
        errors.append(
            f"gradient_clipping is {clipping}, but train.max_grad_norm is {recipe.train.max_grad_norm}: leave it out"
        )
    if (zero.get("offload_optimizer") or {}).get("device", "none") != "none":
        errors.append(
            "offload_optimizer_device is set, but the optimizer holds the small trained part alone; set it to none "
            "and offload_param_device to cpu"
        )
    if plugin.zero_stage not in (1, 2, 3):
        errors.append(f"zero_stage is {plugin.zero_stage}; 1, 2 and 3 are supported")
    if plugin.zero_stage == 3 and recipe.llm.bits in (4, 8):
        errors.append(
            f"ZeRO-3 cannot divide the quantized weights of llm.bits={recipe.llm.bits} over the ranks; "
            "use zero1 or zero2, or llm.bits=16"
        )
    if errors:
        raise UserError("The DeepSpeed profile contradicts the recipe: " + "; ".join(errors) + ".")
    config["train_micro_batch_size_per_gpu"] = 1  # the loop's own affair, but DeepSpeed wants a number
    config["gradient_accumulation_steps"] = 1
    config["gradient_clipping"] = recipe.train.max_grad_norm or 0.0
    config["zero_allow_untested_optimizer"] = True
    return plugin


def _gloo_backend() -> InitProcessGroupKwargs:
    """What DeepSpeed needs to know where no GPU is.

    It needs a backend by name: without it every rank takes itself to be alone, and cpu=True would turn it into plain
    data parallelism in silence. And it does without its shared-memory kernel, which it compiles at the first start
    behind a lock file: a process killed meanwhile leaves the lock, and every later start waits for it for ever
    (torch.utils.file_baton).
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return InitProcessGroupKwargs(backend="gloo")


def _require_consistent_profile(recipe: Recipe) -> None:
    """Check what a profile may say outside of DeepSpeed's settings."""
    asked = {"fp16": "float16", "bf16": "bfloat16", "fp8": "float8"}
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked.get(precision, recipe.llm.dtype) != recipe.llm.dtype:
        raise UserError(
            f"The profile says mixed_precision: {precision}, but the recipe says llm.dtype: {recipe.llm.dtype}; "
            "let the profile say no, the recipe decides."
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto"):
        raise UserError(
            f"The profile says gradient_accumulation_steps: {accumulation}, but the recipe's train.batch_size and "
            "train.micro_batch_size decide it; leave it out of the profile."
        )


def _require_divisible_batch(recipe: Recipe, ranks: int) -> None:
    """Check that every rank gets its share of each optimizer step."""
    train = recipe.train
    if train.max_tokens_per_batch is not None:
        if train.batch_size % ranks:
            raise UserError(
                f"train.batch_size: {train.batch_size} is not a multiple of {ranks} processes; "
                f"set train.batch_size={max(1, train.batch_size // ranks) * ranks}, or launch another number."
            )
    elif train.batch_size % (together := train.micro_batch_size * ranks):
        raise UserError(
            f"train.batch_size: {train.batch_size} is not a multiple of train.micro_batch_size "
            f"({train.micro_batch_size}) x {ranks} processes; "
            f"set train.batch_size={max(1, train.batch_size // together) * together}, or another micro_batch_size."
        )
