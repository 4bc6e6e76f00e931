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


@contextlib.contextmanager
def gathered_by_module(model: nn.Module) -> Iterator[None]:
    """Gathers the own parameters of each module of `model` while it runs, inside the block, as DeepSpeed does.

    All ranks must enter the block and run the same. A no-op without ZeRO-3.
    """
    contexts: list[contextlib.AbstractContextManager[None]] = []

    def enter(module: nn.Module, args: object) -> None:
        contexts.append(gathered(*module.parameters(recurse=False)))
        contexts[-1].__enter__()

    def leave(module: nn.Module, args: object, output: object) -> None:
        contexts.pop().__exit__(None, None, None)

    owners = [part for part in model.modules() if any(map(is_partitioned, part.parameters(recurse=False)))]
    hooks = [owner.register_forward_pre_hook(enter) for owner in owners]
    hooks += [owner.register_forward_hook(leave, always_call=True) for owner in owners]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
