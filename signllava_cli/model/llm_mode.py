"""Modes of an LLM whose weights are frozen, with or without an adapter: training, eval, one sequence a row."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import masking_utils

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
    """Put the modules of `model` into eval mode inside the block: no dropout, no gradient checkpointing."""
    modules = [module for module in model.modules() if module.training and not _keeps_training_mode(module)]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


@contextlib.contextmanager
def unpacked_sequences() -> Iterator[None]:
    """Tell transformers inside the block that no row of a batch holds several sequences.

    It else looks for them in the position ids of every training batch, and the CPU waits for the GPU's answer:
    https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/masking_utils.py#L776
    """

    def find_no_packed_sequences(position_ids: Tensor) -> None:
        return None

    original = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = find_no_packed_sequences
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = original


def _keeps_training_mode(module: nn.Module) -> bool:
    """Whether `module` is of bitsandbytes.

    On some CPUs it repacks its 4-bit weights in eval mode, and training cannot continue with the repacked weights.
    """
    return type(module).__module__.startswith("bitsandbytes")
