"""Access to parameters that DeepSpeed's ZeRO-3 partitions over the ranks."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def gathered(*parameters: nn.Parameter) -> Iterator[None]:
    """Gives every rank the full `parameters` inside the block, which all ranks must enter. A no-op without ZeRO-3."""
    partitioned = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not partitioned:
        yield
        return
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    with GatheredParameters(partitioned):
        yield


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 partitions `parameter`; then it has the attribute `ds_id`."""
    return hasattr(parameter, "ds_id")


def full_numel(parameter: nn.Parameter) -> int:
    """The number of elements of the full `parameter`; the local part of a partitioned one may have none."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
