"""The projector: maps the frames of one stream into the embedding space of the LLM."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from signllava_cli.data.projector_inputs import ProjectorInput
from signllava_cli.recipe import Stream

CALIBRATION_ROWS = 512  # random frames whose embeddings set the initial scale


class Projector(nn.Module):
    """Frames (F, width) -> embeddings (E, hidden), and the two boundary vectors of the stream, or of joined streams.

    `linear` is one linear layer; `mlpNx_gelu` is N linear layers with GELU between them (LLaVA-1.5,
    arXiv:2310.03744). Layer norm before and after is optional; each of several joined streams has its own before.
    `conv` puts convolutions with GELU before the linear layers, `stack` gives the first of them several frames; the
    embeddings of a clip depend on its own frames alone. For input of unit variance, the initial output has the
    standard deviation `scale`, so that embeddings of frames and of words have the same magnitude from the start.

    Args:
        projector_input: the section of the stream in the recipe, or those of joined streams.
        hidden: width of the LLM's embeddings.
        scale: standard deviation of the LLM's embedding table.
        generator: random numbers for the initial weights.
    """

    def __init__(
        self, projector_input: ProjectorInput, hidden: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.input = projector_input
        config, width = projector_input.config, projector_input.width
        depth = 1 if config.projector == "linear" else int(config.projector[3])
        self.norm_in = _input_norm(projector_input)
        # a convolution is a linear layer on the frames of its windows
        self.conv = nn.ModuleList(
            [nn.Linear(window.kernel * width, width) for window in projector_input.windows if config.conv]
        )
        layers: list[nn.Module] = [nn.Linear(config.stack * width, hidden)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(hidden, hidden)]
        self.layers = nn.Sequential(*layers)
        self.norm_out = nn.LayerNorm(hidden) if config.normalize_output else nn.Identity()
        self.boundary = nn.Parameter(scale * torch.randn(2, hidden, generator=generator))
        self._initialize(scale, generator)

    def forward(self, frames: Tensor, windows: Sequence[Tensor], num_clips: int) -> Tensor:
        """Embeddings of frames (F, width), then `num_clips` start boundary vectors, then as many end vectors.

        Shape (E + 2 * num_clips, hidden), in the projector's dtype. The boundary vectors are returned here because
        under ZeRO-3 a module's parameters are complete only while it runs.
        """
        start, end = self.boundary[:, None].expand(-1, num_clips, -1)  # (num_clips, hidden) each
        return torch.cat([self.embed(frames, windows), start, end])

    def embed(self, frames: Tensor, windows: Sequence[Tensor] = ()) -> Tensor:
        """Embeddings (E, hidden) of frames (F, width). `windows`: as in a `StreamBatch`."""
        assert [indices.shape[1] for indices in windows] == [window.kernel for window in self.input.windows]
        states = self.norm_in(frames.to(self.boundary.dtype))
        if self.conv:
            for layer, indices in zip(self.conv, windows, strict=True):
                states = functional.gelu(layer(_window_states(states, indices)))
        elif windows:
            states = _window_states(states, windows[0])
        embeddings: Tensor = self.norm_out(self.layers(states))
        return embeddings

    def embed_clip(self, frames: Tensor) -> Tensor:
        """Embeddings (E, hidden) of the frames (T, width) of one clip."""
        windows = self.input.window_indices(np.array([len(frames)]))
        return self.embed(frames, [torch.from_numpy(indices).to(frames.device) for indices in windows])

    @torch.no_grad()
    def _initialize(self, scale: float, generator: torch.Generator) -> None:
        linears = [layer for layer in (*self.conv, *self.layers) if isinstance(layer, nn.Linear)]
        for layer in linears:
            layer.weight.normal_(std=layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
        if isinstance(self.norm_out, nn.LayerNorm):
            self.norm_out.weight.fill_(scale)
        else:
            rows = torch.randn(CALIBRATION_ROWS, self.input.width, generator=generator)
            linears[-1].weight.mul_(scale / self.embed_clip(rows).std())


class JoinedNorm(nn.ModuleDict):
    """The layer norm of each of several joined streams, by name, applied to its own numbers of a frame.

    One norm over all of them would give each stream a share of the variance that follows from its scale.
    """

    def __init__(self, streams: dict[str, Stream]) -> None:
        super().__init__({name: _norm(stream) for name, stream in streams.items()})
        self.widths = [stream.width for stream in streams.values()]

    def forward(self, frames: Tensor) -> Tensor:
        """The normalized frames (F, width)."""
        parts = frames.split(self.widths, dim=1)
        return torch.cat([norm(part) for norm, part in zip(self.values(), parts, strict=True)], dim=1)


def _input_norm(projector_input: ProjectorInput) -> nn.Module:
    return JoinedNorm(projector_input.streams) if projector_input.is_joined else _norm(projector_input.config)


def _norm(stream: Stream) -> nn.Module:
    return nn.LayerNorm(stream.width) if stream.normalize_input else nn.Identity()


def _window_states(states: Tensor, indices: Tensor) -> Tensor:
    """The states (N, width) that each window (M, kernel) reads, side by side: (M, kernel * width).

    An embedding lookup, because its gradient sums in the same order in every run; that of indexing may not.
    """
    padded = torch.cat([states.new_zeros(1, states.shape[1]), states])  # index 0 is a frame of zeros
    return functional.embedding(indices, padded).flatten(1)
