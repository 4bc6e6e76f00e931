"""The projector: maps the frames of one stream into the embedding space of the LLM."""

import torch
from torch import Tensor, nn

from signllava_cli.recipe import Stream

CALIBRATION_ROWS = 512  # random frames whose embeddings set the initial scale


class Projector(nn.Module):
    """Frames (F, width) -> embeddings (F, hidden), and the two boundary vectors of the stream.

    `linear` is one linear layer; `mlpNx_gelu` is N linear layers with GELU between them (LLaVA-1.5,
    arXiv:2310.03744). Layer norm before and after is optional. For input of unit variance, the initial output has the
    standard deviation `scale`, so that embeddings of frames and of words have the same magnitude from the start.

    Args:
        config: the section of the stream in the recipe.
        hidden: width of the LLM's embeddings.
        scale: standard deviation of the LLM's embedding table.
        generator: random numbers for the initial weights.
    """

    def __init__(self, config: Stream, hidden: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        depth = 1 if config.projector == "linear" else int(config.projector[3])
        self.norm_in = nn.LayerNorm(config.width) if config.normalize_input else nn.Identity()
        layers: list[nn.Module] = [nn.Linear(config.width, hidden)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(hidden, hidden)]
        self.layers = nn.Sequential(*layers)
        self.norm_out = nn.LayerNorm(hidden) if config.normalize_output else nn.Identity()
        self.boundary = nn.Parameter(scale * torch.randn(2, hidden, generator=generator))
        self._initialize(config.width, scale, generator)

    def forward(self, frames: Tensor, num_clips: int) -> Tensor:
        """Embeddings of frames (F, width), then `num_clips` start boundary vectors, then as many end vectors.

        Shape (F + 2 * num_clips, hidden), in the projector's dtype. The boundary vectors are returned here because
        under ZeRO-3 a module's parameters are complete only while it runs.
        """
        start, end = self.boundary[:, None].expand(-1, num_clips, -1)  # (num_clips, hidden) each
        return torch.cat([self.embed(frames), start, end])

    def embed(self, frames: Tensor) -> Tensor:
        """Embeddings (F, hidden) of frames (F, width)."""
        embeddings: Tensor = self.norm_out(self.layers(self.norm_in(frames.to(self.boundary.dtype))))
        return embeddings

    @torch.no_grad()
    def _initialize(self, width: int, scale: float, generator: torch.Generator) -> None:
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linears:
            layer.weight.normal_(std=layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
        if isinstance(self.norm_out, nn.LayerNorm):
            self.norm_out.weight.fill_(scale)
        else:
            rows = torch.randn(CALIBRATION_ROWS, width, generator=generator)
            linears[-1].weight.mul_(scale / self.embed(rows).std())
