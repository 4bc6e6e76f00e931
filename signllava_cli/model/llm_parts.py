"""Where the parts of a causal LLM are: its decoder, and the layers of the decoder."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from signllava_cli.errors import UserError


def base_llm(llm: Any) -> Any:
    """The causal LLM itself: `llm`, or the LLM inside a PeftModel."""
    return llm.get_base_model() if hasattr(llm, "get_base_model") else llm


def text_decoder(llm: Any) -> Any:
    """The decoder of text, whose output are hidden states: the innermost model that holds the input embeddings.

    Raises:
        UserError: there is none.
    """
    module = causal_lm = base_llm(llm)
    while (inner := inner_model(module, causal_lm.get_input_embeddings())) is not None:
        module = inner
    if module is causal_lm:
        raise UserError(f"llm.path: no decoder was found in {type(causal_lm).__name__}; use another LLM.")
    return module


def inner_model(module: nn.Module, table: nn.Module) -> PreTrainedModel | None:
    """The child of `module` that is a model of its own and holds the input embeddings `table`, or None."""
    models = (child for child in module.children() if isinstance(child, PreTrainedModel))
    return next((model for model in models if any(part is table for part in model.modules())), None)


def decoder_layers(llm: Any) -> nn.ModuleList:
    """The layers of the decoder, for which transformers can recompute activations.

    Raises:
        UserError: there are none.
    """
    for module in text_decoder(llm).modules():
        if isinstance(module, nn.ModuleList) and module and isinstance(module[0], GradientCheckpointingLayer):
            return module
    raise UserError(f"llm.path: no layers were found in {type(base_llm(llm)).__name__}; use another LLM.")


def enable_activation_checkpointing(llm: Any, **options: bool) -> None:
    """Compute the activations of the layers again in the backward pass. `options`: of torch's `checkpoint`."""
    # transformers before 5.23 knows the older name alone, which ends with 6.0
    enable = getattr(llm, "activation_checkpointing_enable", None) or llm.gradient_checkpointing_enable
    enable({"use_reentrant": False, **options})


def disable_activation_checkpointing(llm: Any) -> None:
    """Keep the activations of the layers for the backward pass."""
    (getattr(llm, "activation_checkpointing_disable", None) or llm.gradient_checkpointing_disable)()


def compile_layers(llm: Any) -> None:
    """Compile the LLM's layers with torch.compile, one by one: they are alike, so one compilation serves all."""
    for layer in decoder_layers(llm):
        layer.compile(dynamic=True)
