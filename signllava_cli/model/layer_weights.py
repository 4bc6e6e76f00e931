"""The weights of an LLM's layers: which of them an adapter covers, which are quantized, and their memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from signllava_cli.model.partitioning import full_numel

# Bytes per weight in bitsandbytes, with its constants: a float32 per block of 64 weights, or with double quantization
# a byte per block and a float32 per 256 blocks; 8-bit rows have a float32 each, which is not worth counting.
BYTES_PER_QUANTIZED_WEIGHT = {"nested": 0.5 + 1 / 64 + 4 / (64 * 256), "4 bits": 0.5 + 4 / 64, "8 bits": 1.0}
# model_type -> linear layers of Mamba whose weights the model reads without calling the layer, so that an adapter of
# them would not be trained: `out_proj` by the kernels of Mamba-2, `dt_proj` by classes of Mamba-1. PEFT refuses only
# some of these (_check_lora_target_modules_mamba in its tuners_utils.py).
UNCALLED_LAYERS = {
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "mamba2", "nemotron_h", "zamba2"), ("out_proj",)),
    **dict.fromkeys(("falcon_mamba", "mamba"), ("dt_proj", "out_proj")),
    "jamba": ("dt_proj",),
}


@dataclass(frozen=True)
class LayerWeight:
    """A matrix of an LLM's layers, or a stack of matrices, such as those of experts.

    Embeddings, LM head, norms, convolutions and biases are none.

    Attributes:
        name: by which PEFT finds it: the last part of the name of a linear layer, or of any other module the last
            part and the name of the parameter, such as `experts.gate_up_proj`.
        numel: the number of weights.
        kind: `linear` (a linear layer), `stack` (a parameter with the matrices of several experts) or `matrix`
            (another parameter).
        has_adapter: whether LoRA adapts it.
        is_quantized: whether bitsandbytes has quantized it.
        num_bytes: its memory.
    """

    name: str
    numel: int
    kind: str
    has_adapter: bool
    is_quantized: bool
    num_bytes: float


def layer_weights(llm: Any) -> list[LayerWeight]:
    """The weights of the layers of a causal LLM, or of a PeftModel of one, in the order of its modules.

    Of a model with other parts than text, such as a vision tower, they are those of its text decoder.
    """
    return list(_weights_below(llm.get_decoder(), llm.get_output_embeddings(), "", frozenset()))


def linear_layers_without_adapter(llm: Any) -> list[str]:
    """The names of linear layers that `all-linear` leaves out, beside the LM head.

    They are outside of the text decoder, where text never reaches them, or routers of experts (of Llama 4 and
    PhiMoE), which return indices too.
    """
    text = {*llm.get_decoder().modules(), llm.get_output_embeddings()}
    return [
        name
        for name, module in llm.named_modules()
        if is_linear(module) and (module not in text or type(module).__name__.endswith("Router"))
    ]


def adapter_share(weights: Iterable[LayerWeight]) -> float:
    """The share of the weights that has an adapter, from 0 to 1."""
    return _share(weights, [weight for weight in weights if weight.has_adapter])


def quantized_share(weights: Iterable[LayerWeight]) -> float:
    """The share of the weights that is quantized, from 0 to 1."""
    return _share(weights, [weight for weight in weights if weight.is_quantized])


def _share(weights: Iterable[LayerWeight], part: Iterable[LayerWeight]) -> float:
    total = sum(weight.numel for weight in weights)
    return sum(weight.numel for weight in part) / total if total else 0.0


def format_share(share: float) -> str:
    """A share in percent, rounded down: 100 % is said of everything only."""
    return f"{int(share * 1000) / 10:g} %"


def weights_memory(llm: Any) -> float:
    """The memory of the weights of an LLM in bytes, without those of an adapter and without buffers.

    The LLM may be on the device `meta`; under ZeRO-3 it is the memory over all ranks.
    """
    quantized = {id(module.weight) for module in llm.modules() if bnb_quantization(module)}
    return sum(weight.num_bytes for weight in layer_weights(llm) if weight.is_quantized) + sum(
        full_numel(parameter) * parameter.element_size()
        for parameter in llm.parameters()
        if not parameter.requires_grad and id(parameter) not in quantized
    )


def is_linear(module: nn.Module) -> bool:
    """Whether PEFT's `all-linear` includes modules like this one; GPT-2 calls its linear layers Conv1D."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _weights_below(module: nn.Module, head: nn.Module, name: str, adapted: frozenset[str]) -> Iterator[LayerWeight]:
    """The weights of `module` and of the modules inside it, without the LM head and without those of an adapter.

    Args:
        adapted: the parameters of `module` that have an adapter; PEFT's layers hold the layer they adapt.
    """
    from peft.tuners.lora import LoraLayer

    if isinstance(module, LoraLayer):
        parameter = getattr(module, "parameter_name", "weight")
        yield from _weights_below(module.base_layer, head, name, adapted | {parameter})
        return
    if not isinstance(module, nn.Embedding | nn.Conv1d):
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if parameter_name.endswith("bias"):
                continue
            weight = _describe_weight(module, name, parameter_name, parameter, parameter_name in adapted)
            if weight is not None:
                yield weight
    for child_name, child in module.named_children():
        if child is not head:
            yield from _weights_below(child, head, child_name, frozenset())


def _describe_weight(
    module: nn.Module, name: str, parameter_name: str, parameter: nn.Parameter, has_adapter: bool
) -> LayerWeight | None:
    """The weight of a module, or None if it is a vector."""
    shape = getattr(parameter, "ds_shape", parameter.shape)
    if len(shape) < 2:
        return None
    quantization = bnb_quantization(module)
    if quantization:
        numel = module.in_features * module.out_features  # type: ignore[operator]
        num_bytes = numel * BYTES_PER_QUANTIZED_WEIGHT[quantization]
        return LayerWeight(name, int(numel), "linear", has_adapter, True, float(num_bytes))
    numel = full_numel(parameter)
    num_bytes = float(numel * parameter.element_size())
    if is_linear(module):
        return LayerWeight(name, numel, "linear", has_adapter, False, num_bytes)
    kind = "stack" if len(shape) == 3 else "matrix"
    return LayerWeight(f"{name}.{parameter_name}", numel, kind, has_adapter, False, num_bytes)


def bnb_quantization(module: nn.Module) -> str:
    """How bitsandbytes has quantized a module, as a key of BYTES_PER_QUANTIZED_WEIGHT, or an empty text."""
    weight = getattr(module, "weight", None)
    if type(weight).__name__ == "Params4bit":
        return "nested" if weight.compress_statistics else "4 bits"  # type: ignore[union-attr]
    return "8 bits" if type(weight).__name__ == "Int8Params" else ""
