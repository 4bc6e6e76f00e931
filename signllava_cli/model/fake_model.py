"""A model of a recipe on fake tensors: shapes, dtypes and operations of the real one, without weights or memory.

A fake tensor (torch's FakeTensorMode) has no values, so an 8B LLM is run in a second, without its files. The tensors
are fake ones of the CPU, because torch without CUDA cannot fake a GPU, and stand for those of a GPU:

- Attention is the fused one (flash or memory-efficient). It keeps queries, keys, values, its output and a number per
  query, never an L x L matrix per head; a mask, which the prefix cache needs, is kept once per layer.
- Projectors and adapter compute in the LLM's 16 bits, as on a GPU; their weights are float32.
- A layer that bitsandbytes quantizes makes its 16-bit matrix anew in each forward and backward pass; in 8 bits it
  also keeps its input.
- The checks of a start, which compare values, are not made: the prefix cache is taken as possible where the LLM has
  sdpa, and the LM head as all that makes logits of hidden states.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.nn import functional as F
from transformers import masking_utils

from signllava_cli.data.batches import Batch, StreamBatch
from signllava_cli.data.examples import Truncation
from signllava_cli.data.projector_inputs import ProjectorInput, projector_inputs
from signllava_cli.errors import UserError, first_line
from signllava_cli.model.attention import ATTENTION
from signllava_cli.model.decoding_weights import fits_converted
from signllava_cli.model.layer_weights import LayerWeight, bnb_quantization, layer_weights, weights_memory
from signllava_cli.model.llm import outline
from signllava_cli.model.llm_forward import LLMForward
from signllava_cli.model.llm_parts import base_llm, decoder_layers, text_decoder
from signllava_cli.model.lora import add_lora, compute_in_input_dtype
from signllava_cli.model.prefix_cache import PrefixCache, record_prefix
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe

FAKE_TENSOR_ERRORS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


@dataclass(frozen=True)
class BatchShape:
    """The sizes of a batch of equal clips, without padding.

    `seq_len`: tokens of a sequence, embeddings and the constant text included. `prefix_len`: tokens of the constant
    text. `num_targets`: answer tokens of a clip. `embeddings`: name of a projector's input -> its embeddings.
    """

    num_clips: int
    seq_len: int
    prefix_len: int
    num_targets: int
    embeddings: Mapping[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, as `train.max_tokens_per_batch` counts them."""
        return self.num_clips * self.seq_len


class FakeModel(SignLlavaModel):
    """A model whose tensors are fake.

    `llm_memory`: bytes of the weights of the LLM as they are stored. `num_llm_parameters`: without the adapter.
    `inputs`: of the projectors, by name.
    """

    def __init__(
        self, llm: Any, recipe: Recipe, llm_memory: float, quantized: list[LayerWeight], num_llm_parameters: int
    ) -> None:
        table = llm.get_input_embeddings()
        head, (num_tokens, hidden) = llm.get_output_embeddings(), table.weight.shape
        forward = LLMForward(table, 1.0, text_decoder(llm), head, num_tokens, hidden, spread=1.0)
        super().__init__(llm, recipe.streams, recipe.run.seed, forward)
        self.llm_memory, self._quantized = llm_memory, quantized
        self.num_llm_parameters = num_llm_parameters
        self.inputs = projector_inputs(recipe.streams)
        self.dtype = getattr(torch, recipe.llm.dtype)

    def decoding_memory(self, free: float) -> float:
        """The bytes of the weights of the LLM as they are decoded, with `free` bytes beside the stored ones."""
        size = sum(2 * weight.numel for weight in self._quantized)
        added = size - sum(weight.num_bytes for weight in self._quantized)
        return self.llm_memory + (added if fits_converted(size, free) else 0.0)

    def embed(self, batch: Batch) -> Tensor:
        """As SignLlavaModel on a GPU: the projectors compute in the 16 bits of the LLM."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            return super().embed(batch)

    def record_prefix(self, num_tokens: int) -> PrefixCache | None:
        """The prefix cache of so many tokens; None for an LLM whose layers do not all have sdpa."""
        llm = base_llm(self.llm)
        if llm.config._attn_implementation not in ("sdpa", ATTENTION):
            return None
        llm.set_attn_implementation(ATTENTION)
        with torch.no_grad():
            ids = torch.zeros(1, num_tokens, dtype=torch.int64)
            prefix = record_prefix(self.llm_forward.decoder, self.llm_forward.embed(ids))
        if len(prefix.keys) == len(decoder_layers(llm)):
            return prefix
        llm.set_attn_implementation("sdpa")
        return None

    @property
    def has_equal_layers(self) -> bool:
        """Whether all layers have the same modules and sizes, and the same kind of attention."""
        layers = decoder_layers(self.llm)
        kinds = getattr(base_llm(self.llm).config.get_text_config(), "layer_types", None) or []
        return len(set(kinds)) <= 1 and len({_sizes(layer) for layer in layers}) == 1

    @contextlib.contextmanager
    def first_layers(self, count: int) -> Iterator[None]:
        """Without all layers but the first `count` of the LLM inside the block."""
        layers, config = decoder_layers(self.llm), base_llm(self.llm).config.get_text_config()
        removed, num_layers = list(layers[count:]), config.num_hidden_layers
        del layers[count:]
        config.num_hidden_layers = count
        try:
            yield
        finally:
            layers.extend(removed)
            config.num_hidden_layers = num_layers


def _sizes(layer: nn.Module) -> tuple[Any, ...]:
    return tuple((name, type(layer).__name__, weight.shape) for name, weight in layer.named_parameters())


@contextlib.contextmanager
def fake_model(recipe: Recipe) -> Iterator[FakeModel]:
    """The model of a recipe; inside the block all new tensors are fake.

    Raises:
        UserError: the config of the LLM cannot be read, or its class computes what depends on values.
    """
    llm = outline(recipe.llm)
    llm_memory, num_parameters = weights_memory(llm), sum(weight.numel() for weight in llm.parameters())
    quantized = [weight for weight in layer_weights(llm) if weight.is_quantized and recipe.llm.bits == 4]
    if recipe.llm.attn_implementation == "eager":
        llm.set_attn_implementation("eager")
    _replace_quantized_layers(llm)
    with torch.device("meta"):
        if recipe.lora.enabled:
            llm = add_lora(llm, recipe.lora)
            compute_in_input_dtype(llm)
        model = FakeModel(llm, recipe, llm_memory, quantized, num_parameters)
    with FakeTensorMode(), _without_packing():
        _make_fake(model)
        try:
            yield model
        except FAKE_TENSOR_ERRORS as error:
            raise UserError(
                f"llm.path: {type(base_llm(llm)).__name__} computes what depends on values ({first_line(error)}), so "
                "there is no estimate for it; use --dry-run on the GPU."
            ) from error


@contextlib.contextmanager
def _without_packing() -> Iterator[None]:
    """Without transformers' search for packed sequences, which looks at values; with fake ones it makes a mask.

    Real sequences of ours are never packed, so it makes none.
    """
    search = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = search


class _QuantizedLinear(torch.autograd.Function):
    """What bitsandbytes' linear layers compute and keep, given the shape of the weight (out, in)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, keeps_input: bool) -> Tensor:
        ctx.weight, ctx.input = weight, states if keeps_input else None
        return F.linear(states, torch.empty_like(weight, dtype=states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient @ torch.empty_like(ctx.weight, dtype=gradient.dtype), None, None, None


class _FusedDropout(nn.Dropout):
    """Dropout as GPUs compute it, which keeps a byte for each number; CPUs keep a float."""

    def forward(self, input: Tensor) -> Tensor:
        """Of the same shape as `input`."""
        return torch.native_dropout(input, self.p, self.training)[0] if self.training and self.p else input


def _replace_quantized_layers(llm: nn.Module) -> None:
    """Let the layers that bitsandbytes would quantize compute with `_QuantizedLinear`."""

    def replace(module: Any, keeps_input: bool) -> None:
        module.forward = lambda states: _QuantizedLinear.apply(states, module.weight, module.bias, keeps_input)

    for module in llm.modules():
        if quantization := bnb_quantization(module):
            replace(module, keeps_input=quantization == "8 bits")


def _make_fake(model: nn.Module) -> None:
    """Replace the parameters and buffers, on the device `meta`, by fake ones of the CPU; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                weight = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(weight, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        if isinstance(getattr(module, "rope_type", None), str):
            vars(module)["rope_type"] = "default"  # other types look at the values of positions
        if isinstance(module, nn.Dropout):
            module.__class__ = _FusedDropout


def fake_batch(shape: BatchShape, inputs: Mapping[str, ProjectorInput], omit_prefix: bool) -> Batch:
    """A batch of this shape, as `collate_examples` makes it."""
    length = shape.seq_len - (shape.prefix_len if omit_prefix else 0)
    ids = torch.zeros(shape.num_clips, length, dtype=torch.int64)  # (B, L)
    targets = _indices(shape.num_clips * shape.num_targets)
    return Batch(
        clips=("",) * shape.num_clips,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        targets=targets,
        logit_indices=torch.zeros_like(targets),
        streams={name: _fake_stream(shape.num_clips, shape.embeddings[name], inputs[name]) for name in inputs},
        truncation=Truncation(),
        prefix_len=shape.prefix_len if omit_prefix else 0,
    )


def _fake_stream(num_clips: int, num_embeddings: int, projector_input: ProjectorInput) -> StreamBatch:
    num_frames = num_embeddings * projector_input.frames_per_embedding  # of a clip
    frames = torch.zeros(num_clips * num_frames, projector_input.width, dtype=torch.float16)
    windows = []
    for window in projector_input.windows:
        num_frames = -(-num_frames // window.stride)
        windows.append(torch.zeros(num_clips * num_frames, window.kernel, dtype=torch.int64))
    return StreamBatch(
        frames, tuple(windows), _indices(num_clips * num_embeddings), _indices(num_clips), _indices(num_clips)
    )


def _indices(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)
