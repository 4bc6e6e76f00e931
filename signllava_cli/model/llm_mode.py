"""Training and eval mode of an LLM whose weights are frozen, with or without an adapter."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from signllava_cli.model.llm_parts import base_llm, decoder_layers

DROPOUT_WORDS = ("drop", "jitter", "noise")  # in the names of attributes and config settings


def set_frozen_mode(llm: Any) -> None:
    """Put a frozen LLM into eval mode, but leave the dropout of its adapter and gradient checkpointing on.

    transformers recomputes activations only of layers in training mode. The dropout that a layer itself applies, and
    not a module in it, is set to zero.
    """
    for name, module in llm.named_modules():
        module.training = "lora_dropout" in name or _keeps_training_mode(module)
    layers = list(decoder_layers(llm))
    for owner in (*layers, base_llm(llm).config.get_text_config()):
        for name, value in vars(owner).items():
            if isinstance(value, float) and any(word in name for word in DROPOUT_WORDS):
                setattr(owner, name, 0.0)
    for layer in layers:
        layer.training = True


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the modules of `model` into eval mode inside the block: no dropout, no gradient checkpointing.

    Compiled layers run uncompiled. In decoding each layer has other arguments, so it would be compiled separately, and
    torch stops compiling a function, training included, after a few such variants (`recompile_limit`).
    """
    modules = [module for module in model.modules() if module.training and not _keeps_training_mode(module)]
    is_compiled = any(module._compiled_call_impl is not None for module in model.modules())
    uncompiled = torch.compiler.set_stance("force_eager") if is_compiled else contextlib.nullcontext()
    for module in modules:
        module.training = False
    try:
        with uncompiled:
            yield
    finally:
        for module in modules:
            module.training = True


def _keeps_training_mode(module: nn.Module) -> bool:
    """Whether `module` is of bitsandbytes.

    On some CPUs it repacks its 4-bit weights in eval mode, and training cannot continue with the repacked weights.
    """
    return type(module).__module__.startswith("bitsandbytes")
