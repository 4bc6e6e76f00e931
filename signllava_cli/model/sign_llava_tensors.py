"""Identifies the tensors of a Sign_LLaVA checkpoint by their names.

Sign_LLaVA (JSALT2024/Sign_LLaVA, after LLaVA's `build_vision_projector`) names a projector `{stream}_projector`: an
nn.Sequential of linear layers (0, 2, ...) with GELU between them and no norms, or (`linear`) one linear layer without
a number. It added the tokens `<video_start>` and `<video_end>`, in this order, as the last rows of `embed_tokens`;
they are before and after every stream. Wrappers (`module.`, `base_model.model.`, ...) only add a prefix to a name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from signllava_cli.errors import UserError, escape_unprintable, format_count, summarize_names

PROJECTOR = re.compile(r"(?:^|.*\.)([A-Za-z0-9_-]+?)_projector\.(.+)")
LINEAR = re.compile(r"(?:(\d+)\.)?(weight|bias)")
LORA = re.compile(r"(?:^|.*\.)((?:layers\.\d+\..+|lm_head)\.lora_[AB])(?:\.default)?\.weight")
EMBEDDINGS = re.compile(r"(?:^|.*\.)embed_tokens\.weight")
MAX_LAYERS = 9  # of a projector in a recipe


@dataclass(frozen=True)
class SignLlavaProjector:
    """One projector.

    `layers`: its tensors by their names in `Projector` (`layers.0.weight`, ...). `sources`: their names in the file.
    `is_numbered`: whether the names in the file have layer numbers.
    """

    layers: dict[str, Tensor]
    sources: dict[str, str]
    is_numbered: bool

    @property
    def width(self) -> int:
        """The width of a frame."""
        return int(self.layers["layers.0.weight"].shape[1])

    @property
    def hidden_size(self) -> int:
        """The width of an embedding."""
        return int(self.layers["layers.0.weight"].shape[0])

    @property
    def kind(self) -> str:
        """The value of `projector` in a recipe."""
        return f"mlp{len(self.layers) // 2}x_gelu" if self.is_numbered else "linear"


@dataclass(frozen=True)
class SignLlavaParts:
    """The parts of a Sign_LLaVA checkpoint.

    `projectors`: by stream, in the order of the file, in which Sign_LLaVA joined the streams. `adapter`: the LoRA
    tensors, by names such as `layers.0.self_attn.q_proj.lora_A`; `adapter_sources`: their names in the file.
    `embeddings`: the table (rows, hidden); `embeddings_source`: its name in the file.
    """

    projectors: dict[str, SignLlavaProjector]
    adapter: dict[str, Tensor] = field(default_factory=dict)
    adapter_sources: dict[str, str] = field(default_factory=dict)
    embeddings: Tensor | None = None
    embeddings_source: str | None = None

    @property
    def hidden_size(self) -> int:
        """The width of the LLM's embeddings."""
        return next(iter(self.projectors.values())).hidden_size

    @property
    def adapter_rank(self) -> int:
        """The rank of the adapter's first matrix."""
        return int(next(tensor for name, tensor in self.adapter.items() if name.endswith("lora_A")).shape[0])

    @property
    def adapter_targets(self) -> list[str]:
        """The last parts of the names of the adapted modules, such as `q_proj`, in the order of the file."""
        return list(dict.fromkeys(name.split(".")[-2] for name in self.adapter))


def parse_tensors(tensors: dict[str, Tensor], file: Path) -> SignLlavaParts:
    """The parts of the `tensors` in `file`; tensors of the LLM itself are in no part.

    Raises:
        UserError: there is no projector; one lacks a layer, has other than linear layers, or has inconsistent shapes;
            a tensor occurs twice, or is not finite.
    """
    projector_sources: dict[str, dict[str, str]] = {}
    adapter_sources: dict[str, str] = {}
    embeddings = [name for name in tensors if EMBEDDINGS.fullmatch(name)]
    for name in tensors:
        if match := PROJECTOR.fullmatch(name):
            _add_source(projector_sources.setdefault(match[1], {}), match[2], name, file)
        elif match := LORA.fullmatch(name):
            _add_source(adapter_sources, match[1], name, file)
    if not projector_sources:
        raise UserError(
            f"{file} has no projector: expected names such as `sign2vec_projector.0.weight` among its "
            f"{format_count(len(tensors), 'tensor')} ({summarize_names(tensors) or 'none'})."
        )
    if len(embeddings) > 1:
        raise UserError(f"{file} has two embedding tables: {summarize_names(embeddings)}; remove one.")
    parts = SignLlavaParts(
        {stream: _parse_projector(stream, sources, tensors, file) for stream, sources in projector_sources.items()},
        {name: tensors[source] for name, source in adapter_sources.items()},
        adapter_sources,
        tensors[embeddings[0]] if embeddings else None,
        embeddings[0] if embeddings else None,
    )
    for stream, projector in parts.projectors.items():
        if projector.hidden_size != parts.hidden_size:
            raise UserError(
                f"{file}: {stream}_projector has embeddings of {projector.hidden_size} numbers and another one of "
                f"{parts.hidden_size}; they are not of one LLM."
            )
    if parts.adapter and not any(name.endswith("lora_A") for name in parts.adapter):
        raise UserError(f"{file} has an incomplete adapter: lora_A is missing.")
    if parts.embeddings is not None and (
        parts.embeddings.dim() != 2 or parts.embeddings.shape[1] != parts.hidden_size
    ):
        shape = tuple(parts.embeddings.shape)
        raise UserError(
            f"{file}: {embeddings[0]} has shape {shape}, but the projectors require rows of "
            f"{parts.hidden_size} numbers."
        )
    _require_finite({source: tensors[source] for source in _converted_sources(parts)}, file)
    return parts


def _add_source(sources: dict[str, str], name: str, source: str, file: Path) -> None:
    """Record `source`, a name in the file, as the source of our tensor `name`."""
    if name in sources:
        raise UserError(f"{file} has one tensor twice: {summarize_names([sources[name], source])}; remove one.")
    sources[name] = source


def _parse_projector(
    stream: str, sources: dict[str, str], tensors: dict[str, Tensor], file: Path
) -> SignLlavaProjector:
    """The projector of the tensors `sources`: the part of the name after `_projector.` -> the name in the file."""
    source_by_name: dict[str, str] = {}
    is_numbered = True
    for suffix, source in sources.items():
        linear = LINEAR.fullmatch(suffix)
        index = int(linear[1] or 0) if linear else 1
        if linear is None or index % 2:
            raise UserError(
                f"{file}: {escape_unprintable(source)} is not part of a linear layer; only projectors of linear "
                "layers with GELU between them can be converted."
            )
        is_numbered = is_numbered and linear[1] is not None
        _add_source(source_by_name, f"layers.{index}.{linear[2]}", source, file)
    depth = (len(source_by_name) + 1) // 2
    expected = [f"layers.{2 * index}.{kind}" for index in range(depth) for kind in ("weight", "bias")]
    missing = [name for name in expected if name not in source_by_name]
    if missing or depth > MAX_LAYERS:
        error = (
            f"lacks {summarize_names(missing)}"
            if missing
            else f"has {depth} layers, but at most {MAX_LAYERS} are supported"
        )
        raise UserError(f"{file}: {stream}_projector {error}.")
    layers = {name: tensors[source_by_name[name]] for name in expected}
    _require_consistent_shapes(stream, layers, file)
    return SignLlavaProjector(layers, source_by_name, is_numbered)


def _require_consistent_shapes(stream: str, layers: dict[str, Tensor], file: Path) -> None:
    """Check that the input width of each layer is the output width of the previous one."""
    shapes = [tuple(tensor.shape) for tensor in layers.values()]  # weight, bias, weight, bias, ...
    hidden, *width = shapes[0] or (0,)
    expected = [(hidden, *width), (hidden,), *[(hidden, hidden), (hidden,)] * (len(shapes) // 2 - 1)]
    if len(width) != 1 or shapes != expected:
        raise UserError(f"{file}: the shapes of {stream}_projector are inconsistent: {shapes}.")


def _converted_sources(parts: SignLlavaParts) -> Iterable[str]:
    for projector in parts.projectors.values():
        yield from projector.sources.values()
    yield from parts.adapter_sources.values()


def _require_finite(tensors: dict[str, Tensor], file: Path) -> None:
    non_finite = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if non_finite:
        raise UserError(
            f"{file}: {summarize_names(non_finite)} has values that are not finite; convert an earlier checkpoint."
        )
