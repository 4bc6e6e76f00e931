"""How much of a GPU's memory a process can use, and the largest batch that fits into it."""

import math
from collections.abc import Callable
from functools import cache

from signllava_cli.model.gpus import GPU

CONTEXT_BYTES = 2**30  # CUDA's context and kernels, workspaces of cuBLAS, buffers of NCCL
USABLE_SHARE = 0.95  # of the rest: torch's allocator keeps some memory in pieces that are too small


def usable_memory(gpu: GPU) -> float:
    """The bytes that tensors can take on this GPU."""
    return max(0.0, USABLE_SHARE * (gpu.memory - CONTEXT_BYTES))


def most_clips(memory: Callable[[int], float], known: int, limit: float) -> int:
    """The most clips of a batch whose `memory` is at most `limit`; 0 if that of one clip is more.

    The memory of a batch grows linearly with its clips but for small terms, so it is computed twice only: for
    `known` clips and near the limit.
    """
    memory = cache(memory)
    first, second = known, max(known + 1, 2 * known)
    for _ in range(2):
        per_clip = (memory(second) - memory(first)) / (second - first)
        result = math.floor(first + (limit - memory(first)) / per_clip)
        if result < 1 or result in (first, second):
            break
        first, second = second, result
    return max(0, result)
