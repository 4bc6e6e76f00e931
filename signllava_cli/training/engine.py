"""One model under its launcher: gradients of a micro-batch, the clipped step, and the whole of what is trained.

`open_engine` gives the plain one (one process, or several with DDP) or DeepSpeed's ZeRO. Both compute the same.
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
    """What the loop asks of a launcher. All ranks call every method."""

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        """Forward and backward of a micro-batch; its loss, summed over its targets, comes back.

        Gradients are those of the loss times `scale`, averaged over the ranks; `is_last` ends the optimizer step.
        """
        ...

    def step(self) -> float:
        """Clip and take the step; the gradient norm before clipping comes back.

        Where it is not finite, no weight was touched. Gradients are gone either way.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """Everything trained, whole, float32, on the CPU, by name."""
        ...

    def optimizer_state(self) -> dict[str, Tensor]:
        """AdamW's state, whole, on the CPU, as `NAME:exp_avg`, `NAME:exp_avg_sq` and `NAME:step`."""
        ...

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        """Give AdamW the state that `moments` gave; an empty one is that before the first step."""
        ...


def open_engine(
    accelerator: Accelerator, model: SignLlavaModel, optimizer: torch.optim.AdamW, max_grad_norm: float | None
) -> Engine:
    """The engine of this process's launcher; `model` is on its device, and no rank has taken a step."""
    if accelerator.state.deepspeed_plugin is not None:
        return ZeroEngine(accelerator, model, optimizer)
    return PlainEngine(accelerator, model, optimizer, max_grad_norm)


class PlainEngine:
    """One process, or several whose gradients DDP averages."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: SignLlavaModel,
        optimizer: torch.optim.AdamW,
        max_grad_norm: float | None,
    ) -> None:
        self.accelerator, self.optimizer = accelerator, optimizer
        self.max_grad_norm = max_grad_norm or math.inf
        self.trained = model.trainable_parameters()
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
        norm = float(nn.utils.clip_grad_norm_(list(self.trained.values()), self.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def weights(self) -> dict[str, Tensor]:
        return {name: _on_cpu(parameter) for name, parameter in self.trained.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        return {
            f"{name}:{key}": _on_cpu(value)
            for name, parameter in self.trained.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        self.optimizer.state.clear()
        if not optimizer_state:
            return
        for name, parameter in self.trained.items():
            state = {key: optimizer_state[f"{name}:{key}"].to(parameter.device, copy=True) for key in ADAM_STATES}
            self.optimizer.state[parameter] = {**state, STEP: optimizer_state[f"{name}:{STEP}"].clone()}


class ZeroEngine:
    """DeepSpeed: ZeRO-1 divides AdamW's state over the ranks, ZeRO-2 gradients too, ZeRO-3 all weights.

    DeepSpeed keeps what is trained in flat float32 tensors of its own, of which each rank holds a part, and gives
    AdamW these instead of the parameters.
    """

    def __init__(self, accelerator: Accelerator, model: SignLlavaModel, optimizer: torch.optim.AdamW) -> None:
        # torch's AdamW fills in its state at the first step; DeepSpeed's view of it wants one from the beginning
        self.model, _ = accelerator.prepare(model, optimizer)
        self.adamw, self.zero = optimizer, self.model.optimizer
        self.trained = model.trainable_parameters()
        is_divided = accelerator.state.deepspeed_plugin.zero_stage == 3
        flat = self.zero.fp32_partitioned_groups_flat if is_divided else self.zero.single_partition_of_fp32_groups
        for part in flat:
            self.adamw.state[part] = {
                STEP: torch.tensor(0.0),
                **{key: torch.zeros_like(part) for key in ADAM_STATES},
            }
        if not is_divided:
            for parameter in self.trained.values():
                fragment: Any = parameter._hp_mapping  # type: ignore[attr-defined]
                if fragment is not None:  # this rank's part holds some of the parameter
                    part = flat[fragment.param_group_index]
                    fragment.set_optim_state_fragment(part, self.adamw.state[part])

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        self.model.set_gradient_accumulation_boundary(is_last)
        loss, _ = self.model(batch, label_smoothing)
        self.model.backward(loss * scale)
        if not is_last:
            self.model.step()  # counts the micro-batch
        return loss.detach()

    def step(self) -> float:
        self.model.step()
        if not self.model.was_step_applied():
            return math.nan
        return float(self.model.get_global_grad_norm())

    def weights(self) -> dict[str, Tensor]:
        with gathered(*self.trained.values()):
            return {name: _on_cpu(parameter) for name, parameter in self.trained.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = {float(state[STEP]) for state in self.adamw.state.values()}
        assert len(steps) == 1, f"AdamW counts {steps} steps"
        optimizer_state: dict[str, Tensor] = {}
        for name, parameter in self.trained.items():
            for key in ADAM_STATES:
                optimizer_state[f"{name}:{key}"] = _on_cpu(safe_get_full_optimizer_state(parameter, key))
            optimizer_state[f"{name}:{STEP}"] = torch.tensor(steps.copy().pop())
        return optimizer_state

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        for state in self.adamw.state.values():
            for value in state.values():
                value.zero_()
        if not optimizer_state:
            return
        for name, parameter in self.trained.items():
            for key in ADAM_STATES:
                _set_partitioned_state(parameter, optimizer_state[f"{name}:{key}"], key)
        for state in self.adamw.state.values():
            state[STEP].fill_(float(optimizer_state[f"{name}:{STEP}"]))


def _set_partitioned_state(parameter: Any, moment: Tensor, key: str) -> None:
    """Give this rank its part of `moment`, which is that of the whole `parameter`."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, moment, key)
        return
    # parts are of equal size, the last one padded: https://github.com/deepspeedai/DeepSpeed set_full_hp_param is not
    size = parameter.ds_tensor.numel()
    ranks = torch.distributed.get_world_size()
    padded = F.pad(moment.flatten(), (0, size * ranks - moment.numel()))
    safe_set_local_optimizer_state(parameter, padded[size * torch.distributed.get_rank() :][:size], key)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
