"""DeepSpeed's engine on two ranks, in this process's children, against the engine of one process."""

import contextlib
import math
import multiprocessing
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from signllava_cli.recipe import read_recipe
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.engine import PlainEngine, ZeroEngine, open_engine

RANKS = 2
# what one rank computes in a step; rank r takes the micro-batches r and 2 + r of each
BATCHES = [torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


class Model(nn.Module):
    """A frozen layer between trained ones whose sizes no two ranks divide; its loss is a sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.frozen, self.last = nn.Linear(5, 3), nn.Linear(3, 4), nn.Linear(4, 1, bias=False)
        self.frozen.requires_grad_(False)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(self, batch: Tensor, label_smoothing: float) -> tuple[Tensor, int]:
        return (self.last(self.frozen(self.first(batch)).tanh()) ** 2).sum() * (1 - label_smoothing), len(batch)


def make_optimizer(model: Model) -> torch.optim.AdamW:
    decayed, others = [model.first.weight, model.last.weight], [model.first.bias]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))


def step(engine: Any, batches: list[Tensor]) -> tuple[float, float]:
    """The loss of these micro-batches, and the norm of the step."""
    losses = [
        float(engine.forward_backward(batch, 0.1, 0.25, is_last=number == len(batches)))
        for number, batch in enumerate(batches, start=1)
    ]
    return sum(losses), engine.step()


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def run(engine: Any, rank: int | None) -> dict[str, Any]:
    """Two steps, a third with a gradient that is not finite, the state stored; two more, the state restored."""
    own = BATCHES if rank is None else BATCHES[rank::RANKS]
    seen: dict[str, Any] = {"empty": engine.optimizer_state(), "before": copies(engine.weights())}
    seen["steps"] = [step(engine, own), step(engine, own)]
    seen["weights"], seen["state"] = copies(engine.weights()), copies(engine.optimizer_state())
    seen["infinite"] = step(engine, [batch * math.inf for batch in own])[1]
    seen["weights after it"] = copies(engine.weights())
    seen["more"] = [step(engine, own), step(engine, own)]
    engine.set_optimizer_state(seen["state"])
    seen["restored"] = copies(engine.optimizer_state())
    engine.set_optimizer_state({})
    seen["cleared"] = copies(engine.optimizer_state())
    return seen


def run_rank(rank: int, stage: int, port: int, file: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_DEEPSPEED": "true"}
    os.environ |= {"ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage), "LOCAL_WORLD_SIZE": str(RANKS)}
    os.environ.pop("ACCELERATE_USE_CPU", None)
    accelerator = start_accelerator(read_recipe("toy/tiny_pretrain", ["train.max_grad_norm=0.05"]))
    model: Any = Model()
    engine = open_engine(accelerator, model, make_optimizer(model), 0.05)
    assert isinstance(engine, ZeroEngine)
    assert engine.is_partitioned
    torch.save(run(engine, rank), file)
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.drill  # test_launchers.py runs the command under ZeRO-3
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_takes_the_steps_of_one_process_and_restores_its_state(stage: int, tmp_path: Path) -> None:
    import deepspeed  # noqa: F401  before the ranks are forked, or each of them spends seconds on it

    model: Any = Model()
    # the ranks would inherit the state of accelerate's Accelerator, which only one process of a machine may have
    accelerator: Any = SimpleNamespace(prepare=lambda model: model, no_sync=lambda model: contextlib.nullcontext())
    expected = run(PlainEngine(accelerator, model, make_optimizer(model), 0.05), None)
    context, port = multiprocessing.get_context("fork"), free_port()
    files = [tmp_path / f"rank{rank}" for rank in range(RANKS)]
    ranks = [context.Process(target=run_rank, args=(rank, stage, port, files[rank])) for rank in range(RANKS)]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout=300)
    finally:
        for process in ranks:
            process.kill()
    assert [process.exitcode for process in ranks] == [0] * RANKS
    results = [torch.load(file, weights_only=True) for file in files]
    compare(results, expected)


def compare(results: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    for result in results:
        for name in ("before", "weights", "weights after it"):
            torch.testing.assert_close(result[name], expected[name], rtol=1e-5, atol=1e-6)
        for name in ("state", "restored"):
            torch.testing.assert_close(result[name], expected["state"], rtol=1e-4, atol=1e-7)
        assert not math.isfinite(result["infinite"])
        for name in ("empty", "cleared"):
            assert result[name].keys() == expected["state"].keys()
            assert not any(tensor.any() for tensor in result[name].values())
        assert all(tensor.dtype == torch.float32 for tensor in result["weights"].values())
    for name in ("steps", "more"):
        for number, (loss, norm) in enumerate(expected[name]):
            assert sum(result[name][number][0] for result in results) == pytest.approx(loss, rel=1e-5)
            # DeepSpeed averages gradients over the ranks, whose sum is that of one process
            assert [result[name][number][1] for result in results] == pytest.approx([norm / RANKS] * RANKS, rel=1e-4)
