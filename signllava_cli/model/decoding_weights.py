"""The weights of a model that is only decoded: on a GPU, in the precision in which they are multiplied."""

from typing import Any

import torch
from torch import nn

from signllava_cli.console import info
from signllava_cli.model.llm_memory import format_bytes, free_memory
from signllava_cli.model.lora import cast_adapter
from signllava_cli.model.signllava_model import SignLlavaModel

MEMORY_SHARE = 0.6  # of the free memory of the GPU; the rest is for the KV cache


def prepare_decoding_weights(model: SignLlavaModel, dtype: torch.dtype) -> None:
    """Make the weights of a model on a GPU faster to decode; it can then be neither trained nor saved.

    Weights of 4 bits become `dtype` if these fit into the memory: bitsandbytes would do so for each product, which
    reads and writes more memory than the product itself. The adapter becomes `dtype` too, in which it is also
    multiplied in training. The products have the same values.
    """
    free = free_memory(model.llm.device)
    if free is None or dtype == torch.float32:
        return
    size = sum(weight.quant_state.shape.numel() for weight in quantized_weights(model.llm)) * dtype.itemsize
    if size and fits_converted(size, free):
        dequantize_layers(model.llm, dtype)
        info(f"4-bit weights: converted to {str(dtype).removeprefix('torch.')} ({format_bytes(size)}) for decoding")
    cast_adapter(model.llm, dtype)


def fits_converted(size: float, free: float) -> bool:
    """Whether weights of 4 bits are converted, which then take `size` of `free` bytes."""
    return size <= free * MEMORY_SHARE


def quantized_weights(llm: Any) -> list[Any]:
    """The weights of bitsandbytes in 4 bits (`Params4bit`)."""
    return [weight for weight in llm.parameters() if type(weight).__name__ == "Params4bit"]


def dequantize_layers(llm: Any, dtype: torch.dtype) -> None:
    """Replace the 4-bit layers of bitsandbytes by linear layers with the values that bitsandbytes multiplies."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    for parent in list(llm.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear4bit):
                with torch.device("meta"):
                    linear = nn.Linear(child.in_features, child.out_features, bias=False)
                weight = dequantize_4bit(child.weight.data, child.weight.quant_state).to(dtype)
                linear.weight = nn.Parameter(weight, requires_grad=False)
                linear.bias = child.bias
                setattr(parent, name, linear.eval())
