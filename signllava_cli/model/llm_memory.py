"""The memory that an LLM takes, before it is loaded, and where it is more than its bits say."""

from typing import Any

import torch

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.model.layer_weights import format_share, layer_weights, quantized_share, weights_memory

EXPECTED_SHARE = 0.95  # of the layers' weights; a quantized LLM with less takes more memory than its bits say


def outline_llm(llm_config: Any, dtype: torch.dtype, quantization_config: Any) -> Any:
    """The LLM of a transformers config on the device `meta`, with the layers that bitsandbytes would quantize.

    It has no memory, but sizes, dtypes and classes are those of the loaded LLM.

    Args:
        quantization_config: of transformers (`BitsAndBytesConfig`), or None.
    """
    from transformers import AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(llm_config, dtype=dtype)
        llm.tie_weights()
    if quantization_config is not None:
        quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
        quantizer.preprocess_model(llm, dtype=dtype, device_map=None)
    return llm.requires_grad_(False)


def require_memory(llm: Any, free: int, path: str) -> None:
    """Check that an outlined LLM fits into `free` bytes, before it is loaded.

    Raises:
        UserError: it does not.
    """
    needed, share = weights_memory(llm), quantized_share(layer_weights(llm))
    if needed > free:
        reason = f", because only {format_share(share)} of the layers' weights are quantized" if share else ""
        raise UserError(
            f"{path} takes {format_bytes(needed)}{reason}, but the GPU has {format_bytes(free)} free; use a smaller "
            "LLM, fewer llm.bits, or a GPU with more memory."
        )


def free_memory(device: torch.device) -> int | None:
    """The free memory of a GPU in bytes; None for a CPU, and under ZeRO-3, which divides the weights."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if device.type != "cuda" or is_deepspeed_zero3_enabled():
        return None
    return torch.cuda.mem_get_info(device)[0]


def print_quantized_share(llm: Any, bits: int) -> None:
    """Say how many of the layers' weights are quantized, and the memory of the LLM, if it is below 95 %."""
    weights = layer_weights(llm)
    share = quantized_share(weights)
    if bits not in (4, 8) or share >= EXPECTED_SHARE:
        return
    names = ", ".join(dict.fromkeys(weight.name for weight in weights if not weight.is_quantized))
    kept = format_bytes(sum(weight.num_bytes for weight in weights if not weight.is_quantized))
    info(
        f"llm.bits={bits}: {format_share(share)} of the layers' weights are quantized; bitsandbytes quantizes linear "
        f"layers only, so {names} keep llm.dtype and take {kept} of the LLM's {format_bytes(weights_memory(llm))}"
    )


def format_bytes(num_bytes: float) -> str:
    """A size as `15.21 GiB` or `1.02 MiB`."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.2f} MiB"
