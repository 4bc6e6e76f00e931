"""The engine of one process, and of processes whose gradients are averaged, against steps written out by hand."""

import contextlib
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from signllava_cli.training import engine as module
from signllava_cli.training.engine import PlainEngine, open_engine


class Model(nn.Module):
    """A model of two trained parameters; its loss is a sum over the numbers of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -2.0]))
        self.shift = nn.Parameter(torch.tensor(0.25))

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {"a.scale": self.scale, "b.shift": self.shift}

    def forward(self, batch: Tensor, label_smoothing: float) -> tuple[Tensor, int]:
        return ((batch * self.scale + self.shift) ** 2).sum() * (1 - label_smoothing), len(batch)


class Accelerator:
    """The part of accelerate's Accelerator that an engine uses; `events` has the calls."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.state = SimpleNamespace(deepspeed_plugin=None)

    def prepare(self, *objects: Any) -> Any:
        self.events.append("prepare")
        return objects[0] if len(objects) == 1 else objects

    @contextlib.contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        assert isinstance(model, Model)
        self.events.append("no_sync")
        yield
        self.events.append("sync")


BATCHES: Any = [torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[3.0, 0.1]])]


def make_engine(max_grad_norm: float | None = None) -> tuple[Any, Model, Accelerator]:
    model: Any = Model()
    accelerator: Any = Accelerator()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    return open_engine(accelerator, model, optimizer, max_grad_norm), model, accelerator


def train(engine: Any, steps: int) -> list[float]:
    """The gradient norms of some steps on both batches."""
    norms = []
    for _ in range(steps):
        for number, batch in enumerate(BATCHES):
            engine.forward_backward(batch, 0.1, 0.25, is_last=number == 1)
        norms.append(engine.step())
    return norms


@pytest.mark.parametrize("max_grad_norm", [None, 0.0, 0.75, 1000.0])
def test_a_step_is_that_of_adamw_on_the_clipped_gradient_of_the_scaled_sum(max_grad_norm: float | None) -> None:
    """None and 0 clip nothing."""
    engine, model, accelerator = make_engine(max_grad_norm)
    assert isinstance(engine, PlainEngine)
    assert not engine.is_partitioned
    reference = Model()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        losses = [
            engine.forward_backward(batch, 0.1, 0.25, is_last=number == 1) for number, batch in enumerate(BATCHES)
        ]
        assert [loss.item() for loss in losses] == pytest.approx([reference(b, 0.1)[0].item() for b in BATCHES])
        assert not any(loss.requires_grad for loss in losses)
        optimizer.zero_grad()
        sum(0.25 * reference(batch, 0.1)[0] for batch in BATCHES).backward()
        gradients = [parameter.grad for parameter in reference.parameters() if parameter.grad is not None]
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        for gradient in gradients:
            gradient *= min(1.0, (max_grad_norm or math.inf) / norm)
        optimizer.step()
        assert engine.step() == pytest.approx(norm)
        for name, weight in reference.trainable_parameters().items():
            torch.testing.assert_close(engine.weights()[name], weight.detach())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert accelerator.events == ["prepare"] + ["no_sync", "sync"] * 3


def test_gradients_are_synchronized_in_the_last_micro_batch_only() -> None:
    engine, _, accelerator = make_engine()
    engine.forward_backward(BATCHES[0], 0.0, 1.0, is_last=True)
    assert accelerator.events == ["prepare"]
    engine.forward_backward(BATCHES[0], 0.0, 1.0, is_last=False)
    assert accelerator.events == ["prepare", "no_sync", "sync"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_cleared(number: float) -> None:
    engine, model, _ = make_engine(1.0)
    train(engine, 1)
    weights, state = engine.weights(), engine.optimizer_state()
    engine.forward_backward(torch.tensor([[number, 1.0]]), 0.1, 1.0, is_last=True)
    assert not math.isfinite(engine.step())
    for before, after in ((weights, engine.weights()), (state, engine.optimizer_state())):
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_restored_state_continues_as_if_there_had_been_no_stop() -> None:
    engine, _, _ = make_engine()
    train(engine, 2)
    weights = {name: tensor.clone() for name, tensor in engine.weights().items()}
    state = {name: tensor.clone() for name, tensor in engine.optimizer_state().items()}
    assert set(state) == {
        f"{name}:{key}" for name in ("a.scale", "b.shift") for key in ("exp_avg", "exp_avg_sq", "step")
    }
    assert state["a.scale:step"] == 2
    expected_norms, expected = train(engine, 2), engine.weights()
    for start in (0, 3):  # a new engine, and one that has gone on
        other, other_model, _ = make_engine()
        train(other, start)
        with torch.no_grad():
            for name, parameter in other_model.trainable_parameters().items():
                parameter.copy_(weights[name])
        other.set_optimizer_state(state)
        assert train(other, 2) == expected_norms
        assert all(torch.equal(tensor, expected[name]) for name, tensor in other.weights().items())
    assert state["a.scale:step"] == 2  # restoring took copies
    assert torch.equal(state["a.scale:exp_avg"], state["a.scale:exp_avg"].clone())


def test_restoring_copies_the_state() -> None:
    engine, _, _ = make_engine()
    train(engine, 1)
    state = engine.optimizer_state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    engine.set_optimizer_state(state)
    train(engine, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_an_empty_state_is_that_before_the_first_step() -> None:
    engine, model, _ = make_engine()
    assert engine.optimizer_state() == {}
    first = train(engine, 1), engine.weights()
    with torch.no_grad():
        for parameter, fresh in zip(model.parameters(), Model().parameters(), strict=True):
            parameter.copy_(fresh)
    engine.set_optimizer_state({})
    assert engine.optimizer_state() == {}
    again = train(engine, 1), engine.weights()
    assert again[0] == first[0]
    assert all(torch.equal(tensor, again[1][name]) for name, tensor in first[1].items())


def test_weights_and_state_are_float32_copies_on_the_cpu() -> None:
    engine, model, _ = make_engine()
    with torch.no_grad():
        model.scale = nn.Parameter(torch.ones(3, 2).t().to(torch.float64))  # not contiguous
    engine.parameters["a.scale"] = model.scale
    weight = engine.weights()["a.scale"]
    assert weight.dtype == torch.float32
    assert weight.is_contiguous()
    assert not weight.requires_grad
    with torch.no_grad():
        model.shift.add_(1)
    saved = engine.weights()["b.shift"]
    with torch.no_grad():
        model.shift.add_(1)
    assert saved.item() == 1.25
    meta = module._copy_to_cpu(torch.ones(2))
    assert meta.device.type == "cpu"


def test_under_deepspeed_the_engine_is_that_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    def make(*arguments: Any) -> str:
        made.append(arguments)
        return "zero"

    monkeypatch.setattr(module, "ZeroEngine", make)
    accelerator: Any = Accelerator()
    accelerator.state.deepspeed_plugin = object()
    model: Any = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    engine: Any = open_engine(accelerator, model, optimizer, 1.0)
    assert engine == "zero"
    assert made == [(accelerator, model, optimizer)]
