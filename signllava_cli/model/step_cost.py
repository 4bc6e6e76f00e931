"""The FLOPs and the memory of a training step and of reading prompts, measured on a fake model."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from signllava_cli.model.cost_counter import CostCounter
from signllava_cli.model.fake_model import BatchShape, FakeModel, fake_batch
from signllava_cli.model.kv_cache import PrefillRecorder
from signllava_cli.model.llm_parts import (
    decoder_layers,
    disable_activation_checkpointing,
    enable_activation_checkpointing,
)
from signllava_cli.model.prefix_cache import PrefixCache

FEW_LAYERS = (2, 3)  # equal layers cost the same each, so two short LLMs tell the cost of a deep one


@dataclass(frozen=True)
class TrainingCost:
    """The forward and backward pass of a micro-batch; memory in bytes.

    `flops`: a multiplication and an addition are two; all L x L pairs of attention count, as in torch's FlopCounter.
    `prefix`: the prefix cache. `activations`: what the forward pass keeps for the backward pass. `logits` and
    `backward`: the most that exists beside these while the loss is computed, and during the backward pass.
    """

    flops: float
    prefix: float
    activations: float
    logits: float
    backward: float

    @property
    def peak(self) -> float:
        """The most memory at once, beside weights, gradients and AdamW's state."""
        return self.prefix + self.activations + max(self.logits, self.backward)


@dataclass(frozen=True)
class PrefillCost:
    """Reading the prompts of a batch; memory in bytes.

    `flops`: as in TrainingCost. `kv`: the keys and values of all layers, the constant text of each clip included.
    `forward`: the most that exists beside these. `shares_prompts`: whether the hypotheses of a clip share its prompt.
    """

    flops: float
    kv: float
    forward: float
    shares_prompts: bool


Cost = TypeVar("Cost", TrainingCost, PrefillCost)


def training_cost(
    model: FakeModel, shape: BatchShape, gradient_checkpointing: bool, with_prefix: bool
) -> TrainingCost:
    """The cost of a micro-batch of this shape. Gradients and AdamW's state exist before and are no part of it.

    `with_prefix`: the keys and values of the constant text are taken from the prefix cache, where the LLM has one.
    """
    llm = model.llm
    if gradient_checkpointing:
        # without the state of random numbers, which is a real tensor; dropout takes no memory for it
        enable_activation_checkpointing(llm, preserve_rng_state=False)
    else:
        disable_activation_checkpointing(llm)
    model.train()
    return _by_layers(model, lambda: _run_training(model, shape, with_prefix))


def _run_training(model: FakeModel, shape: BatchShape, with_prefix: bool) -> TrainingCost:
    model.prefix = model.record_prefix(shape.prefix_len) if with_prefix and shape.prefix_len else None
    for parameter in model.trainable_parameters().values():
        parameter.grad = torch.empty_like(parameter)
    counter = CostCounter(_existing_tensors(model, model.prefix))
    activations = 0

    def after_decoder(*_: object) -> None:
        nonlocal activations
        activations = counter.memory
        counter.reset_peak()

    hook = model.llm_forward.decoder.register_forward_hook(after_decoder)
    try:
        with counter:
            batch = fake_batch(shape, model.inputs, omit_prefix=model.prefix is not None)
            loss, _ = model(batch)
            logits = counter.peak - activations
            counter.reset_peak()
            loss.backward()
    finally:
        hook.remove()
    prefix = float(sum(tensor.nbytes for tensor in _kv(model.prefix)))
    return TrainingCost(counter.flops, prefix, activations, logits, counter.peak - activations)


@torch.no_grad()
def prefill_cost(model: FakeModel, shape: BatchShape) -> PrefillCost:
    """The cost of reading prompts of this shape, the constant text from the prefix cache where the LLM has one."""
    model.eval()
    return _by_layers(model, lambda: _run_prefill(model, shape))


def _run_prefill(model: FakeModel, shape: BatchShape) -> PrefillCost:
    prefix = model.record_prefix(shape.prefix_len)
    counter = CostCounter(_existing_tensors(model, prefix))
    with counter:
        embeddings = model.embed(fake_batch(shape, model.inputs, omit_prefix=prefix is not None))
        decoder = model.llm_forward.decoder
        if prefix is None:
            output = decoder(inputs_embeds=embeddings, use_cache=True)
            kv = counter.memory - output.last_hidden_state.nbytes - embeddings.nbytes
        else:
            recorder = PrefillRecorder(prefix)
            decoder(inputs_embeds=embeddings, use_cache=False, **recorder.arguments(embeddings))
            kv = sum(tensor.nbytes for tensor in (*recorder.all_keys, *recorder.all_values))
    return PrefillCost(counter.flops, kv, counter.peak - kv, prefix is not None)


def _existing_tensors(model: FakeModel, prefix: PrefixCache | None) -> list[Tensor]:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*model.parameters(), *model.buffers(), *gradients, *_kv(prefix)]


def _kv(prefix: PrefixCache | None) -> list[Tensor]:
    return [] if prefix is None else [*prefix.keys.values(), *prefix.values.values()]


def _by_layers(model: FakeModel, run: Callable[[], Cost]) -> Cost:
    """The cost that `run` measures; of an LLM of many equal layers it is computed from `FEW_LAYERS` of them."""
    num_layers, (few, more) = len(decoder_layers(model.llm)), FEW_LAYERS
    if num_layers <= more or not model.has_equal_layers:
        return run()
    with model.first_layers(few):
        first = run()
    with model.first_layers(more):
        second = run()
    factor = (num_layers - few) / (more - few)
    numbers = [field.name for field in fields(first) if field.type is float]
    values = {
        name: getattr(first, name) + factor * (getattr(second, name) - getattr(first, name)) for name in numbers
    }
    return replace(first, **values)
