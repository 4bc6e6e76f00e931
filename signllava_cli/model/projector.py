"""A projector: what maps the frames of one stream into the embedding space of the LLM."""

import torch
from torch import Tensor, nn

from signllava_cli.recipe import Stream

CALIBRATION_ROWS = 512


class Projector(nn.Module):
    """Frames (F, width) -> embeddings (F, hidden), and the two boundary vectors of the stream.

    `linear` is one linear layer; `mlpNx_gelu` is N linear layers with GELU between them (LLaVA-1.5,
    arXiv:2310.03744). Layer norm before and after is optional. The initial output has the spread `scale`
    for input of unit variance, so that a frame is as loud as a word from the first step on.

    Args:
        settings: the stream's recipe section.
        hidden: width of the LLM's embeddings.
        scale: standard deviation of the LLM's embedding table.
        generator: draws the initial weights.
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

    def forward(self, frames: Tensor, clips: int) -> Tensor:
        """Embeddings of frames (F, width), then the opening and then the closing boundary of each of `clips` clips.

        Shape (F + 2 * clips, hidden), in the projector's own dtype. The boundaries come from here because under
        ZeRO-3 a module's weights are whole only while it runs.
        """
        opening, closing = self.boundary[:, None].expand(-1, clips, -1)
        return torch.cat([self.embed(frames), opening, closing])

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
