"""How much of a GPU's memory a process can use, and the largest batch that fits into it."""

from collections.abc import Callable

from signllava_cli.model.gpus import GPU

CONTEXT_BYTES = 2**30  # CUDA's context and kernels, workspaces of cuBLAS, buffers of NCCL
MAX_CLIPS = 500  # of a batch whose memory is computed; that of more is extrapolated
USABLE_SHARE = 0.95  # of the rest: torch's allocator keeps some memory in pieces that are too small


def usable_memory(gpu: GPU) -> float:
    """The bytes that tensors can take on this GPU."""
    return max(0.0, USABLE_SHARE * (gpu.memory - CONTEXT_BYTES))


def most_clips(memory: Callable[[int], float], known: int, fixed: float, limit: float) -> int:
    """The most clips of a batch whose `memory` is at most `limit`; 0 if that of one clip is more.

    It grows linearly but for small terms, so it is computed twice only, for `known` clips and near the limit.

    Args:
        fixed: the memory that does not depend on the clips.
    """
    at_known = memory(known)
    guess = min(max(1, int((limit - fixed) * known / (at_known - fixed))), MAX_CLIPS)
    other = known + 1 if guess == known else guess
    per_clip = (memory(other) - at_known) / (other - known)
    return max(0, int(known + (limit - at_known) // per_clip))
