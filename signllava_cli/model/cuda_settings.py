"""The settings of torch for GPUs, for training, generation and the API alike."""

import torch


def configure_cuda() -> None:
    """Never compute attention with cuDNN: it builds a plan for each new shape (about half a second on an H100).

    Our shapes do not repeat: a batch has its own length, and a decoded sequence grows by a token per step. Flash and
    memory-efficient attention have no plans.

    TF32 stays off. No large product in float32 is left where it is allowed: projectors and adapter compute in 16 bits
    with a 16-bit LLM, and a float32 LLM is computed exactly. But rotary embeddings multiply positions and frequencies
    in float32 with every LLM: with the 10 bits of TF32, angles at position 1,000 would be off by up to half a radian.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
