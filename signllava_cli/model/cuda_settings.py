"""The settings of torch for GPUs, for training, generation and the API alike."""

import contextlib
import os
from collections.abc import Iterator

import torch

from signllava_cli.errors import UserError, first_line

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")


def configure_cuda() -> None:
    """Never compute attention with cuDNN: it builds a plan for each new shape (about half a second on an H100).

    Our shapes do not repeat: a batch has its own length, and a decoded sequence grows by a token per step. Flash and
    memory-efficient attention have no plans.

    TF32 stays off. No large product in float32 is left where it is allowed: projectors and adapter compute in 16 bits
    with a 16-bit LLM, and a float32 LLM is computed exactly. But rotary embeddings multiply positions and frequencies
    in float32 with every LLM: with the 10 bits of TF32, angles at position 1,000 would be off by up to half a radian.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextlib.contextmanager
def deterministic_algorithms(is_enabled: bool) -> Iterator[None]:
    """Inside this block, if `is_enabled`, compute the same bits at each repetition on GPUs of one kind.

    Then flash and memory-efficient attention sum their gradients in a fixed order (PyTorch's attention_backward.cu),
    and so do cuBLAS, with a workspace that must be set before its first product, and indexing. An operation that has
    no such algorithm is an error.

    Raises:
        UserError: an operation has no deterministic algorithm, or the user has set another workspace.
    """
    if not is_enabled:
        yield
        return
    workspace = os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACES[0])
    if workspace not in DETERMINISTIC_WORKSPACES:
        raise UserError(
            f"train.deterministic: cuBLAS is not deterministic with {CUBLAS_WORKSPACE}={workspace}; unset it, or set "
            f"it to {' or '.join(DETERMINISTIC_WORKSPACES)}."
        )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise UserError(f"train.deterministic: {first_line(error)}; set it to false.") from error
    finally:
        torch.use_deterministic_algorithms(False)
