"""Counts the FLOPs of what runs inside a block, and the memory of the tensors that it makes."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """A product for the scores and one for the output, of all L x K pairs, also where a mask hides them."""
    batch, heads, length, width = query.shape
    return 2 * batch * heads * length * key.shape[2] * (width + value.shape[3])


def _cpu_attention_flops(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    return _attention_flops(query, key, value)


def _cpu_attention_backward_flops(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> int:
    """Five products: the scores again, and the gradients of weights, queries, keys and values."""
    return _attention_flops(query, key, value) * 5 // 2


# torch's own formulas, and those of the fused attention of CPUs, which it lacks.
FORMULAS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward_flops,
}


class CostCounter(TorchDispatchMode):
    """Counts FLOPs, and the bytes of the storages that are made inside the block and still alive.

    Real and fake tensors give the same numbers. Each storage counts once, however many tensors view it.

    Attributes:
        flops: of matrix products, convolutions and attention, a multiplication and an addition being two.
        memory: bytes alive now. peak: the most since the start, or since `reset_peak`.

    Args:
        existing: tensors that were made before and do not count.
    """

    def __init__(self, existing: list[Tensor]) -> None:
        super().__init__()
        self.flops, self.memory, self.peak = 0.0, 0, 0
        self._existing = {_key(tensor) for tensor in existing}
        self._sizes: dict[int, int] = {}

    def reset_peak(self) -> None:
        """Let `peak` begin at the memory that is alive now."""
        self.peak = self.memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if formula := FORMULAS.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=output)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return output

    def _add(self, tensor: Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._existing or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.memory += storage.nbytes()
        self.peak = max(self.peak, self.memory)
        weakref.finalize(storage, self._remove, key).atexit = False

    def _remove(self, key: int) -> None:
        self.memory -= self._sizes.pop(key)


def _key(tensor: Tensor) -> int:
    """What distinguishes the storage of a tensor from all others that are alive."""
    return int(tensor.untyped_storage()._cdata)
