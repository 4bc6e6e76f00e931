"""An optimizer step over the micro-batches of all ranks, with an engine that records what it is asked."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from signllava_cli.data.batches import Batch
from signllava_cli.data.examples import Truncation
from signllava_cli.training import step as module
from signllava_cli.training.step import StepResult, optimizer_step, seed_step, with_wait_seconds

CPU = torch.device("cpu")


def make_batch(num_targets: int, lengths: tuple[int, ...], truncation: Truncation) -> Batch:
    """A batch whose sequences have these lengths."""
    mask = torch.tensor([[int(column < length) for column in range(max(lengths))] for length in lengths])
    targets = torch.arange(num_targets)
    clips = tuple(f"r/{length}" for length in lengths)
    return Batch(clips, torch.zeros_like(mask), mask, targets, targets, {}, truncation)


BATCHES = [
    make_batch(3, (5, 2), Truncation(4, 1)),
    make_batch(4, (3,), Truncation(0, 2)),
    make_batch(1, (6, 6, 1), Truncation(8, 0)),
]


class Engine:
    """An engine whose losses are 10, 20, 30."""

    is_partitioned = False

    def __init__(self, norm: float = 0.5) -> None:
        self.calls: list[Any] = []
        self.norm = norm

    def forward_backward(self, batch: Batch, label_smoothing: float, scale: float, is_last: bool) -> Tensor:
        self.calls.append((batch.clips, label_smoothing, scale, is_last, batch.input_ids.device.type))
        return torch.tensor(10.0 * len(self.calls))

    def step(self) -> float:
        self.calls.append("step")
        return self.norm

    def weights(self) -> dict[str, Tensor]:
        raise NotImplementedError

    optimizer_state = weights

    def set_optimizer_state(self, optimizer_state: dict[str, Tensor]) -> None:
        raise NotImplementedError


class Ranks:
    """The part of accelerate's Accelerator that a step uses, where every other rank has the numbers `others`."""

    def __init__(self, *others: list[float], loss: float = 0.0, device: torch.device = CPU) -> None:
        self.others, self.loss, self.device = others, loss, device
        self.num_processes = 1 + len(others)

    def gather(self, own: Tensor) -> Tensor:
        others = torch.tensor(self.others, dtype=torch.float64).reshape(-1, own.shape[1])
        assert own.dtype == torch.float64  # float32 is not exact above 2**24
        return torch.cat([own, others.to(own.device)])

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return tensor + self.loss


def take_step(engine: Engine, ranks: Ranks, batches: list[Batch] = BATCHES, **options: float) -> StepResult:
    accelerator: Any = ranks
    return optimizer_step(engine, batches, 0.1, accelerator, **options)


def test_a_step_has_the_mean_loss_and_the_counts_of_all_micro_batches() -> None:
    engine = Engine()
    result = take_step(engine, Ranks())
    assert engine.calls == [
        (("r/5", "r/2"), 0.1, 1 / 8, False, "cpu"),
        (("r/3",), 0.1, 1 / 8, False, "cpu"),
        (("r/6", "r/6", "r/1"), 0.1, 1 / 8, True, "cpu"),
        "step",
    ]
    assert replace(result, seconds=0.0) == StepResult(
        loss=60 / 8,
        num_targets=8,
        num_tokens=23,
        num_padding=8,
        gradient_norm=0.5,
        truncation=Truncation(12, 3),
        seconds=0.0,
        data_wait_seconds=0.0,
    )


def test_a_step_of_three_ranks_sums_their_losses_and_counts_and_has_the_longest_wait() -> None:
    """The engine averages gradients over the ranks, so the scale has the number of ranks."""
    engine = Engine()
    others = [[10, 100, 1000, 7, 6, 0.25], [2, 2**40, 3, 1, 1, 0.125]]
    result = take_step(engine, Ranks(*others, loss=100.0), data_wait_seconds=0.1875)
    assert [call[2] for call in engine.calls[:3]] == [3 / 20] * 3
    assert replace(result, seconds=0.0) == StepResult(
        loss=160 / 20,
        num_targets=20,
        num_tokens=123 + 2**40,
        num_padding=8 + 1003,
        gradient_norm=0.5,
        truncation=Truncation(12 + 8, 3 + 7),
        seconds=0.0,
        data_wait_seconds=0.25,
    )
    assert all(isinstance(count, int) for count in (result.num_targets, result.num_tokens, result.truncation.frames))


def test_the_duration_of_a_step_includes_the_wait_for_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 107.5])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    result = take_step(Engine(), Ranks(), data_wait_seconds=2.0)
    assert (result.seconds, result.data_wait_seconds) == (9.5, 2.0)


def test_losses_are_summed_and_batches_computed_on_the_device() -> None:
    """The meta device has no numbers, so that the step fails where it needs the first one: the sum of the losses."""
    engine = Engine()
    device = torch.device("meta")
    made: list[str] = []

    class Recording(Ranks):
        def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
            made.append(tensor.device.type)
            return torch.tensor(8.0)

    result = take_step(engine, Recording(device=device))
    assert made == ["meta"]
    assert {call[4] for call in engine.calls[:-1]} == {"meta"}
    assert result.loss == 1.0


def test_counts_are_gathered_on_the_device() -> None:
    gathered: list[str] = []

    class Recording(Ranks):
        def gather(self, own: Tensor) -> Tensor:
            gathered.append(own.device.type)
            return torch.tensor([[8.0, 23, 8, 12, 3, 0.5]] * 2, dtype=torch.float64)

        def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
            return torch.tensor(16.0)

    result = take_step(Engine(), Recording([0.0] * 6, device=torch.device("meta")))
    assert gathered == ["meta"]
    assert (result.num_targets, result.loss, result.data_wait_seconds) == (16, 1.0, 0.5)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_step_is_not_finite_if_its_loss_or_its_gradient_is_not(number: float) -> None:
    result = take_step(Engine(), Ranks())
    assert result.is_finite
    assert not replace(result, loss=number).is_finite
    assert not replace(result, gradient_norm=number).is_finite


def test_each_batch_comes_with_the_time_that_was_spent_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [50.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def read() -> Any:
        for seconds in (3.0, 1.5):
            clock[0] += seconds
            yield [BATCHES[0]]

    waits = []
    for batches, seconds in with_wait_seconds(read()):
        assert batches == [BATCHES[0]]
        waits.append(seconds)
        clock[0] += 20  # the step itself
    assert waits == [3.0, 1.5]


def test_dropout_is_a_function_of_seed_step_and_rank() -> None:
    def sample(*numbers: int) -> list[float]:
        seed_step(*numbers)
        return torch.rand(4).tolist()

    expected = sample(1, 2, 3)
    torch.rand(7)
    assert sample(1, 2, 3) == expected
    others = [(0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3), (1, 3, 2)]
    assert len({tuple(sample(*numbers)) for numbers in others} | {tuple(expected)}) == 6
    seed_step(1, 2, 3)
    assert torch.initial_seed() == 3822189696  # a run that a later version resumes has the same dropout


def test_seconds_are_those_of_a_monotonic_clock() -> None:
    start = time.monotonic()
    result = take_step(Engine(), Ranks())
    assert 0 < result.seconds <= time.monotonic() - start
