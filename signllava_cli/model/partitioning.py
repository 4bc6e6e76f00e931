"""Parameters that DeepSpeed's ZeRO-3 divides over the ranks, seen whole."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def gathered(*parameters: nn.Parameter) -> Iterator[None]:
    """Inside the block `parameters` are whole on every rank. All ranks enter it; nothing to do for undivided ones."""
    divided = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not divided:
        yield
        return
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    with GatheredParameters(divided):
        yield


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 holds `parameter` in parts; `ds_id` is its mark."""
    return hasattr(parameter, "ds_id")


def full_numel(parameter: nn.Parameter) -> int:
    """The number of elements of the whole of `parameter`; a rank that holds a part of it may hold none."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
