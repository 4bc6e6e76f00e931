"""The model under its launcher: backward of a micro-batch, the clipped step, and the full trained tensors.

`open_engine` returns `PlainEngine` (one process, or several with DDP) or `ZeroEngine` (DeepSpeed). Both compute the
same steps.
"""

import math
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from signllava_cli.data.batches import Batch
from signllava_cli.model.partitioning import gathered
from signllava_cli.model.signllava_model import SignLlavaModel

ADAM_STATES = ("exp_avg", "exp_avg_sq")
STEP = "step"


class Engine(Protocol):
    """What the training loop needs of a launcher.

    All ranks must call every method; without `is_partitioned`, one rank may get weights and optimizer state alone.

    `is_partitioned`: whether ranks hold parts of the trained weights or of the optimizer state.
    """

    is_partitioned: bool

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        """Forward and backward of a micro-batch; returns its loss, summed over its targets, a scalar tensor.

        Accumulates the gradients of the loss times `scale`, averaged over the ranks. `is_last`: this is the last
        micro-batch of the optimizer step.
        """
        ...

    def step(self) -> float:
        """Clip the gradients and update the weights; returns the gradient norm before clipping.

        If the norm is not finite, the weights are not updated. The gradients are cleared in both cases.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """All trained parameters by name: full tensors, float32, on the CPU."""
        ...

    def optimizer_state(self) -> dict[str, Tensor]:
        """AdamW's state: full tensors on the CPU, named `NAME:exp_avg`, `NAME:exp_avg_sq` and `NAME:step`."""
        ...

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        """Restore a state that `optimizer_state` returned; an empty one is the state before the first step."""
        ...


def open_engine(
    accelerator: Accelerator, model: SignLlavaModel, optimizer: torch.optim.AdamW, max_grad_norm: float | None
) -> Engine:
    """The engine for the launcher of this process. `model` must be on its device, and no step has been taken."""
    if accelerator.state.deepspeed_plugin is not None:
        return ZeroEngine(accelerator, model, optimizer)
    return PlainEngine(accelerator, model, optimizer, max_grad_norm)


class PlainEngine:
    """One process, or several processes whose gradients DDP averages."""

    is_partitioned = False

    def __init__(
        self,
        accelerator: Accelerator,
        model: SignLlavaModel,
        optimizer: torch.optim.AdamW,
        max_grad_norm: float | None,
    ) -> None:
        self.accelerator, self.optimizer = accelerator, optimizer
        self.max_grad_norm = max_grad_norm or math.inf
        self.parameters = model.trainable_parameters()
        self.model = accelerator.prepare(model)

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        def forward_and_backward() -> Tensor:
            loss, _ = self.model(batch, label_smoothing)
            (loss * scale).backward()
            return loss.detach()

        if is_last:
            return forward_and_backward()
        with self.accelerator.no_sync(self.model):
            return forward_and_backward()

    def step(self) -> float:
        norm = float(nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def weights(self) -> dict[str, Tensor]:
        return {name: _copy_to_cpu(parameter) for name, parameter in self.parameters.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        return {
            f"{name}:{key}": _copy_to_cpu(value)
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        self.optimizer.state.clear()
        if not optimizer_state:
            return
        for name, parameter in self.parameters.items():
            state = {key: optimizer_state[f"{name}:{key}"].to(parameter.device, copy=True) for key in ADAM_STATES}
            self.optimizer.state[parameter] = {**state, STEP: optimizer_state[f"{name}:{STEP}"].clone()}


class ZeroEngine:
    """DeepSpeed: ZeRO-1 partitions AdamW's state over the ranks, ZeRO-2 also the gradients, ZeRO-3 also all weights.

    DeepSpeed copies the trained parameters into flat float32 tensors, of which each rank holds a partition, and
    AdamW updates these partitions instead of the parameters.
    """

    is_partitioned = True

    def __init__(self, accelerator: Accelerator, model: SignLlavaModel, optimizer: torch.optim.AdamW) -> None:
        # torch's AdamW creates its state in the first step, but DeepSpeed's access functions need it before
        self.model, _ = accelerator.prepare(model, optimizer)
        self.adamw, self.zero = optimizer, self.model.optimizer
        self.parameters = model.trainable_parameters()
        is_zero3 = accelerator.state.deepspeed_plugin.zero_stage == 3
        partitions = self.zero.fp32_partitioned_groups_flat if is_zero3 else self.zero.single_partition_of_fp32_groups
        for partition in partitions:
            self.adamw.state[partition] = {
                STEP: torch.tensor(0.0),
                **{key: torch.zeros_like(partition) for key in ADAM_STATES},
            }
        if not is_zero3:
            for parameter in self.parameters.values():
                fragment: Any = parameter._hp_mapping  # type: ignore[attr-defined]
                if fragment is not None:  # the partition of this rank holds a fragment of the parameter
                    partition = partitions[fragment.param_group_index]
                    fragment.set_optim_state_fragment(partition, self.adamw.state[partition])

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        self.model.set_gradient_accumulation_boundary(is_last)
        loss, _ = self.model(batch, label_smoothing)
        self.model.backward(loss * scale)
        if not is_last:
            self.model.step()  # DeepSpeed counts the micro-batch; it does not update yet
        return loss.detach()

    def step(self) -> float:
        self.model.step()
        if not self.model.was_step_applied():
            return math.nan
        return float(self.model.get_global_grad_norm())

    def weights(self) -> dict[str, Tensor]:
        with gathered(*self.parameters.values()):
            return {name: _copy_to_cpu(parameter) for name, parameter in self.parameters.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = {float(state[STEP]) for state in self.adamw.state.values()}
        assert len(steps) == 1, f"AdamW's step counts differ: {steps}"
        optimizer_state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for key in ADAM_STATES:
                optimizer_state[f"{name}:{key}"] = _copy_to_cpu(safe_get_full_optimizer_state(parameter, key))
            optimizer_state[f"{name}:{STEP}"] = torch.tensor(steps.copy().pop())
        return optimizer_state

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        for state in self.adamw.state.values():
            for value in state.values():
                value.zero_()
        if not optimizer_state:
            return
        for name, parameter in self.parameters.items():
            for key in ADAM_STATES:
                _set_partitioned_state(parameter, optimizer_state[f"{name}:{key}"], key)
        for state in self.adamw.state.values():
            state[STEP].fill_(float(optimizer_state[f"{name}:{STEP}"]))


def _set_partitioned_state(parameter: Any, full_state: Tensor, key: str) -> None:
    """Set AdamW's state `key` of `parameter` on this rank, from the state of the full parameter."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, full_state, key)
        return
    # ZeRO-3's partitions have equal sizes, the last one is padded. DeepSpeed's set_full_hp_param ignores the padding:
    # https://github.com/deepspeedai/DeepSpeed
    size = parameter.ds_tensor.numel()
    num_padding = size * torch.distributed.get_world_size() - full_state.numel()
    padded = F.pad(full_state.flatten(), (0, num_padding))
    safe_set_local_optimizer_state(parameter, padded[size * torch.distributed.get_rank() :][:size], key)


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
