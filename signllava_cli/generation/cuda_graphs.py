"""Records a decoding step as CUDA graphs: one call then starts all its kernels, which do not wait for the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from signllava_cli.console import warning
from signllava_cli.errors import first_line
from signllava_cli.model.llm_forward import relative_difference

TOLERANCE = 1e-3  # relative RMS between a graph and the step that it recorded: the same kernels on the same numbers

Step = Callable[[Tensor, int], Tensor]  # token ids (rows, H) and number of keys -> logits (rows, H, V)


class CudaGraphs:
    """A decoding step with one CUDA graph for each shape of its input.

    Everything that `step` reads and writes must keep its address; call `clear` when that changes. A graph is compared
    with the step when it is recorded; where it differs, or cannot be recorded, the step itself runs from then on.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()
        self.is_enabled = True

    def clear(self) -> None:
        """Forget all graphs."""
        self._graphs.clear()

    def run(self, ids: Tensor, num_keys: int) -> Tensor:
        """As `step`; the logits are overwritten by the next call."""
        if not self.is_enabled:
            return self._step(ids, num_keys)
        shape = (len(ids), num_keys)
        if shape not in self._graphs:
            return self._record(shape, ids, num_keys)
        graph, static_ids, logits = self._graphs[shape]
        static_ids.copy_(ids)
        graph.replay()
        return logits

    def _record(self, shape: tuple[int, int], ids: Tensor, num_keys: int) -> Tensor:
        """Run the step, and record it."""
        current, static_ids = torch.cuda.current_stream(), ids.clone()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            expected = self._step(static_ids, num_keys)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                logits = self._step(static_ids, num_keys)
            graph.replay()
        except RuntimeError as error:
            self._disable(f"they cannot be recorded ({first_line(error)})")
            return expected
        difference = relative_difference(logits, expected)
        if not difference <= TOLERANCE:  # NaN too
            self._disable(f"their logits differ by {difference:.2g}, relative, at most {TOLERANCE:g}")
            return expected
        self._graphs[shape] = graph, static_ids, logits
        return logits

    def _disable(self, reason: str) -> None:
        self.is_enabled = False
        self.clear()
        warning(f"decoding without CUDA graphs, several times slower: {reason}")
