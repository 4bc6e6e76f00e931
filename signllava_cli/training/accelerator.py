"""Join the processes that a launcher started, and check that the launch profile does not contradict the recipe."""

import os
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs

from signllava_cli.errors import UserError
from signllava_cli.generation.distributed import COLLECTIVE_TIMEOUT, require_visible_gpu, uses_gpus
from signllava_cli.recipe import Recipe

SUPPORTED_TYPES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
)


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Join the processes that the launcher started.

    The profile sets the number of processes and how they split the work; the recipe sets precision, accumulation and
    clipping under every launcher.

    Raises:
        UserError: an unsupported launcher, a profile that contradicts the recipe or does not work with it, more ranks
            than GPUs, or a `train.batch_size` that cannot be divided by the ranks.
    """
    require_visible_gpu()
    _require_consistent_profile(recipe)
    has_gpu = uses_gpus()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        if not has_gpu:
            _disable_shm_kernel()
        plugin = _deepspeed_plugin(recipe)
        # Without the name of the backend, each rank on a machine without GPU would run as a single process.
        group = InitProcessGroupKwargs(backend="nccl" if has_gpu else "gloo", timeout=COLLECTIVE_TIMEOUT)
        accelerator = Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[group], mixed_precision="no")
    else:
        group = InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT)
        # Without cpu=True, each rank on a machine without GPU would run as a single process.
        accelerator = Accelerator(cpu=not has_gpu, kwargs_handlers=[group], mixed_precision="no")
    distributed_type = accelerator.distributed_type
    if distributed_type not in SUPPORTED_TYPES:
        raise UserError(
            f"The launcher's distributed type {distributed_type.value} is not supported; use a profile of "
            "accelerate_configs/."
        )
    _require_divisible_batch(recipe, accelerator.num_processes)
    return accelerator


def distributed_type_name(accelerator: Accelerator) -> str:
    """The distributed type to print: `NO`, `MULTI_CPU`, `MULTI_GPU`, `DEEPSPEED ZeRO-2`."""
    plugin = accelerator.state.deepspeed_plugin
    return accelerator.distributed_type.value + (f" ZeRO-{plugin.zero_stage}" if plugin else "")


def _deepspeed_plugin(recipe: Recipe) -> DeepSpeedPlugin:
    """The DeepSpeed settings of the profile, with gradient clipping from the recipe.

    DeepSpeed's mixed precision stays off: it would train the projectors in 16 bits. The frozen LLM keeps its dtype,
    trained parameters are float32, and gradients are summed in float32. The training loop accumulates micro-batches
    and marks the last one of a step for DeepSpeed.

    Raises:
        UserError: the profile contradicts the recipe, or has settings that cannot work.
    """
    try:
        plugin = DeepSpeedPlugin()
    except (ValueError, OSError) as error:
        raise UserError(f"The DeepSpeed settings of the profile are not valid: {error}") from None
    config: dict[str, Any] = plugin.deepspeed_config
    zero = config["zero_optimization"]
    errors = [
        f"{key} is enabled, but llm.dtype sets the precision: disable it"
        for key in ("fp16", "bf16")
        if config.get(key, {}).get("enabled") is True
    ]
    errors += [
        f"`{key}` is set, but the recipe's section train sets it: remove it"
        for key in ("optimizer", "scheduler")
        if key in config
    ]
    if config.get("gradient_accumulation_steps", "auto") not in ("auto", 1):
        errors.append(
            f"gradient_accumulation_steps is {config['gradient_accumulation_steps']}, but train.batch_size and "
            "train.micro_batch_size set it: remove it"
        )
    clipping = config.get("gradient_clipping", "auto")
    if clipping != "auto" and clipping != (recipe.train.max_grad_norm or 0.0):
        errors.append(
            f"gradient_clipping is {clipping}, but train.max_grad_norm is {recipe.train.max_grad_norm}: remove it"
        )
    if (zero.get("offload_optimizer") or {}).get("device", "none") != "none":
        errors.append(
            "offload_optimizer_device is set, but the optimizer state covers only the trained parameters: set it to "
            "none, and offload_param_device to cpu"
        )
    if plugin.zero_stage not in (1, 2, 3):
        errors.append(f"zero_stage is {plugin.zero_stage}: set it to 1, 2 or 3")
    if plugin.zero_stage == 3 and recipe.llm.bits in (4, 8):
        errors.append(
            f"ZeRO-3 cannot partition the quantized weights of llm.bits={recipe.llm.bits} over the ranks: "
            "use zero1 or zero2, or llm.bits=16"
        )
    if errors:
        raise UserError("The DeepSpeed profile contradicts the recipe: " + "; ".join(errors) + ".")
    config["train_micro_batch_size_per_gpu"] = (
        1  # not used, since the training loop makes the micro-batches, but DeepSpeed requires a number
    )
    config["gradient_accumulation_steps"] = 1
    config["gradient_clipping"] = recipe.train.max_grad_norm or 0.0
    config["zero_allow_untested_optimizer"] = True
    return plugin


def _disable_shm_kernel() -> None:
    """Disable DeepSpeed's shared-memory kernel for CPUs.

    DeepSpeed compiles it at the first start under a lock file, and when a process is killed during this, every later
    start waits forever for the lock (torch.utils.file_baton).
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _require_consistent_profile(recipe: Recipe) -> None:
    """Check the settings of a profile outside of its DeepSpeed section."""
    dtypes = {"fp16": "float16", "bf16": "bfloat16", "fp8": "float8"}
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if dtypes.get(precision, recipe.llm.dtype) != recipe.llm.dtype:
        raise UserError(
            f"The profile sets mixed_precision: {precision}, but the recipe sets llm.dtype: {recipe.llm.dtype}; set "
            'mixed_precision: "no" in the profile.'
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto"):
        raise UserError(
            f"The profile sets gradient_accumulation_steps: {accumulation}, but the recipe's train.batch_size and "
            "train.micro_batch_size set it; remove it from the profile."
        )


def _require_divisible_batch(recipe: Recipe, num_processes: int) -> None:
    """Check that every rank gets the same number of clips or micro-batches of each optimizer step."""
    config = recipe.train
    if config.max_tokens_per_batch is not None:
        divisor, product = num_processes, f"{num_processes} processes"
        alternative = "launch another number of processes"
    else:
        divisor = config.micro_batch_size * num_processes
        product = f"train.micro_batch_size ({config.micro_batch_size}) x {num_processes} processes"
        alternative = "another micro_batch_size"
    if config.batch_size % divisor:
        raise UserError(
            f"train.batch_size: {config.batch_size} is not a multiple of {product}; "
            f"set train.batch_size={max(1, config.batch_size // divisor) * divisor}, or {alternative}."
        )
