"""What each tensor of a Sign_LLaVA checkpoint is to us.

Sign_LLaVA (JSALT2024/Sign_LLaVA, after LLaVA's `build_vision_projector`) names a projector
`{stream}_projector`: an nn.Sequential of linear layers (0, 2, ...) with GELU between them and no norms, or (`linear`)
one linear layer without a number. It added the tokens `<video_start>` and `<video_end>`, in this order, as the last
rows of `embed_tokens`; they stand around every stream. Wrappers (`module.`, `base_model.model.`, ...) only add to the
front of a name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from signllava_cli.errors import UserError, escape_unprintable, summarize_names

PROJECTOR = re.compile(r"(?:^|.*\.)([A-Za-z0-9_-]+?)_projector\.(.+)")
LINEAR = re.compile(r"(?:(\d+)\.)?(weight|bias)")
LORA = re.compile(r"(?:^|.*\.)((?:layers\.\d+\..+|lm_head)\.lora_[AB])(?:\.default)?\.weight")
EMBEDDINGS = re.compile(r"(?:^|.*\.)embed_tokens\.weight")
MAX_LAYERS = 9  # that a recipe can name


@dataclass(frozen=True)
class SignLlavaProjector:
    """One projector's `layers`, by our names (`layers.0.weight`, ...), and their names in the file, `sources`."""

    layers: dict[str, Tensor]
    sources: dict[str, str]
    is_numbered: bool

    @property
    def width(self) -> int:
        """Numbers in a frame."""
        return int(self.layers["layers.0.weight"].shape[1])

    @property
    def hidden(self) -> int:
        """Numbers in an embedding."""
        return int(self.layers["layers.0.weight"].shape[0])

    @property
    def kind(self) -> str:
        """What a recipe calls such a projector."""
        return f"mlp{len(self.layers) // 2}x_gelu" if self.is_numbered else "linear"


@dataclass(frozen=True)
class SignLlavaParts:
    """A Sign_LLaVA checkpoint taken apart.

    `projectors` are by stream, in the file's order, which is the order in which Sign_LLaVA joined the
    streams. `adapter` is LoRA's tensors, by names such as `layers.0.self_attn.q_proj.lora_A`, with their names in the
    file in `adapter_sources`. `embeddings` is the table (rows, hidden), of the name `embeddings_source`.
    """

    projectors: dict[str, SignLlavaProjector]
    adapter: dict[str, Tensor] = field(default_factory=dict)
    adapter_sources: dict[str, str] = field(default_factory=dict)
    embeddings: Tensor | None = None
    embeddings_source: str | None = None

    @property
    def hidden(self) -> int:
        """The width of the LLM's embeddings."""
        return next(iter(self.projectors.values())).hidden

    @property
    def adapter_rank(self) -> int:
        """The rank of the adapter's first matrix."""
        return int(next(tensor for name, tensor in self.adapter.items() if name.endswith("lora_A")).shape[0])

    @property
    def adapter_targets(self) -> list[str]:
        """The last names of the modules that the adapter changes, such as `q_proj`, in the file's order."""
        return list(dict.fromkeys(name.split(".")[-2] for name in self.adapter))


def parse_tensors(tensors: dict[str, Tensor], where: Path) -> SignLlavaParts:
    """What the `tensors` of the file `where` are; those of the LLM itself are in no part.

    Raises:
        UserError: there is no projector; one lacks a layer, holds something else than linear layers, or is of shapes
            that do not follow each other; a tensor is there twice, or not finite.
    """
    found: dict[str, dict[str, str]] = {}
    adapter_sources: dict[str, str] = {}
    embeddings = [name for name in tensors if EMBEDDINGS.fullmatch(name)]
    for name in tensors:
        if of_projector := PROJECTOR.fullmatch(name):
            _add(found.setdefault(of_projector[1], {}), of_projector[2], name, where)
        elif lora := LORA.fullmatch(name):
            _add(adapter_sources, lora[1], name, where)
    if not found:
        raise UserError(
            f"{where} holds no projector: expected names such as `sign2vec_projector.0.weight` among its "
            f"{len(tensors)} tensors ({summarize_names(tensors) or 'none'})."
        )
    if len(embeddings) > 1:
        raise UserError(f"{where} holds two embedding tables: {summarize_names(embeddings)}.")
    parts = SignLlavaParts(
        {stream: _projector(stream, sources, tensors, where) for stream, sources in found.items()},
        {name: tensors[source] for name, source in adapter_sources.items()},
        adapter_sources,
        tensors[embeddings[0]] if embeddings else None,
        embeddings[0] if embeddings else None,
    )
    for stream, projector in parts.projectors.items():
        if projector.hidden != parts.hidden:
            raise UserError(
                f"{where}: {stream}_projector gives embeddings of {projector.hidden} numbers and another one of "
                f"{parts.hidden}; they cannot serve one LLM."
            )
    if parts.adapter and not any(name.endswith("lora_A") for name in parts.adapter):
        raise UserError(f"{where} holds half an adapter: no lora_A.")
    if parts.embeddings is not None and (parts.embeddings.dim() != 2 or parts.embeddings.shape[1] != parts.hidden):
        shape = tuple(parts.embeddings.shape)
        raise UserError(f"{where}: {embeddings[0]} is {shape}, but its projectors give {parts.hidden} numbers a row.")
    _require_finite({source: tensors[source] for source in _converted_names(parts)}, where)
    return parts


def _add(names: dict[str, str], ours: str, source: str, where: Path) -> None:
    if ours in names:
        raise UserError(f"{where} holds one tensor twice: {summarize_names([names[ours], source])}.")
    names[ours] = source


def _projector(stream: str, sources: dict[str, str], tensors: dict[str, Tensor], where: Path) -> SignLlavaProjector:
    """The projector whose tensors have the names `sources` (by what follows `_projector.`) in the file."""
    ours: dict[str, str] = {}
    is_numbered = True
    for rest, source in sources.items():
        linear = LINEAR.fullmatch(rest)
        index = int(linear[1] or 0) if linear else 1
        if linear is None or index % 2:
            raise UserError(
                f"{where}: {escape_unprintable(source)} is of no linear layer; only projectors of linear layers with GELU "
                "between them can be converted."
            )
        is_numbered = is_numbered and linear[1] is not None
        _add(ours, f"layers.{index}.{linear[2]}", source, where)
    depth = (len(ours) + 1) // 2
    expected = [f"layers.{2 * index}.{kind}" for index in range(depth) for kind in ("weight", "bias")]
    missing = [name for name in expected if name not in ours]
    if missing or depth > MAX_LAYERS:
        what = (
            f"lacks {summarize_names(missing)}" if missing else f"has {depth} layers, and {MAX_LAYERS} are the most"
        )
        raise UserError(f"{where}: {stream}_projector {what}.")
    layers = {name: tensors[ours[name]] for name in expected}
    _require_chain(stream, layers, where)
    return SignLlavaProjector(layers, ours, is_numbered)


def _require_chain(stream: str, layers: dict[str, Tensor], where: Path) -> None:
    """Check that each layer takes what the one before it gives."""
    shapes = [tuple(tensor.shape) for tensor in layers.values()]  # weight, bias, weight, bias, ...
    hidden, *width = shapes[0] or (0,)
    expected = [(hidden, *width), (hidden,), *[(hidden, hidden), (hidden,)] * (len(shapes) // 2 - 1)]
    if len(width) != 1 or shapes != expected:
        raise UserError(f"{where}: the shapes of {stream}_projector do not follow each other: {shapes}.")


def _converted_names(parts: SignLlavaParts) -> Iterable[str]:
    for projector in parts.projectors.values():
        yield from projector.sources.values()
    yield from parts.adapter_sources.values()


def _require_finite(tensors: dict[str, Tensor], where: Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(
            f"{where}: {summarize_names(broken)} holds values that are not finite; take an earlier checkpoint."
        )
