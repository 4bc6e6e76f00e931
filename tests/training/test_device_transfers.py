"""Batches reach a GPU from pinned memory, and a step waits for the GPU at its end only.

What a CPU can show: which tensors are pinned, and which operations read a number of a tensor, on which a GPU waits.
tests/gpu/test_no_waits.py lets CUDA itself look for waits.
"""

import dataclasses
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import SHORTENINGS, open_recipe_split
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.recipe import Recipe, read_recipe
from signllava_cli.training.engine import Engine, open_engine
from signllava_cli.training.optimizer import make_optimizer
from signllava_cli.training.step import optimizer_step

# Operations whose result, or its shape, the CPU needs, and torch.tensor(numbers), which copies from unpinned memory.
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal", "lift_fresh")


class Waits(TorchDispatchMode):
    """Appends the name of every operation in `WAITING` to `events`, except where transformers makes masks.

    There it looks in the position ids for several sequences in a row, once in a micro-batch.
    """

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        has_bool_index = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or has_bool_index:
            files = {Path(frame.filename).name for frame in traceback.extract_stack()}
            self.events += [] if "masking_utils.py" in files else [name]
        return function(*args, **(kwargs or {}))


class RecordingEngine:
    """An engine that appends its calls to `events`."""

    is_partitioned = False

    def __init__(self, engine: Engine, events: list[str]) -> None:
        self.engine, self.events = engine, events

    def forward_backward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.events.append("micro-batch")
        return self.engine.forward_backward(*args, **kwargs)

    def step(self) -> float:
        self.events.append("step")
        return self.engine.step()


def open_training(recipe: Recipe) -> tuple[ModelBundle, TrainingSet]:
    bundle, split = load_model_bundle(recipe, torch.device("cpu")), open_recipe_split(recipe, "train")
    data = recipe.data
    builder = ExampleBuilder(
        bundle.prompts, recipe.streams, data.max_seq_len, data.min_frames, recipe.context.prelude
    )
    return bundle, TrainingSet(recipe, split, builder)


def micro_batches(recipe: Recipe, bundle: ModelBundle, examples: TrainingSet, omit_prefix: bool) -> list[Batch]:
    collate = training_collator(recipe, bundle.pad_id, omit_prefix)
    return next(iter(training_steps(recipe, examples, 0, 1, collate, 0, 1)))


def tensors(batch: Batch) -> list[Tensor]:
    """Every tensor in the fields of a batch and of its streams."""
    found: list[Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                collect(item)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                collect(getattr(value, field.name))

    collect(batch)
    return found


@pytest.mark.parametrize("reuses_prefix", [True, False])
@pytest.mark.parametrize("overrides", [[], SHORTENINGS["conv"]], ids=["plain", "conv"])
def test_a_step_waits_for_the_device_after_its_last_micro_batch_only(
    settings: list[str], overrides: list[str], reuses_prefix: bool
) -> None:
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *overrides, "train.micro_batch_size=1"])
    bundle, examples = open_training(recipe)
    model, accelerator = bundle.model.train(), Accelerator(cpu=True)
    if reuses_prefix:
        assert model.reuse_prefix(bundle.prompts.before_streams, recipe.data.max_seq_len)
    events: list[str] = []
    engine = RecordingEngine(open_engine(accelerator, model, make_optimizer(model, recipe), 1.0), events)
    batches = micro_batches(recipe, bundle, examples, reuses_prefix)
    with Waits(events):
        optimizer_step(engine, batches, 0.1, accelerator)  # type: ignore[arg-type]
    from_forward = events[events.index("micro-batch") :]
    assert from_forward[:5] == ["micro-batch"] * 4 + ["step"]
    assert from_forward[5:].count("_local_scalar_dense") >= 2  # gradient norm and loss: the mode sees what waits


@pytest.mark.parametrize("overrides", [[], SHORTENINGS["conv"]], ids=["plain", "conv"])
def test_one_process_counts_a_step_without_its_device(
    settings: list[str], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without storage, `meta`, would raise where a number comes from it."""
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *overrides, "train.micro_batch_size=2"])
    bundle, examples = open_training(recipe)
    batches = micro_batches(recipe, bundle, examples, False)
    accelerator = SimpleNamespace(
        device=torch.device("meta"), num_processes=1, reduce=lambda loss, how: torch.ones(())
    )

    class Devices:
        def forward_backward(self, batch: Batch, *args: Any, **kwargs: Any) -> Tensor:
            assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}
            return torch.zeros((), device="meta")

        def step(self) -> float:
            return 1.0

    result = optimizer_step(Devices(), batches, 0.1, accelerator, 0.5)  # type: ignore[arg-type]
    assert result.num_targets == sum(len(batch.targets) for batch in batches)
    assert result.num_tokens == sum(int(batch.attention_mask.sum()) for batch in batches)
    assert result.num_padding == sum(int((batch.attention_mask == 0).sum()) for batch in batches)
    assert result.data_wait_seconds == 0.5


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The addresses of the tensors that `Tensor.pin_memory` made, on a machine that seems to have a GPU."""
    addresses: set[int] = set()
    kept: list[Tensor] = []  # an address is not used twice

    def pin(tensor: Tensor, *args: Any) -> Tensor:
        copy = tensor.clone()
        kept.append(copy)
        addresses.add(id(copy))
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return addresses


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_training_batches_are_pinned_if_there_is_a_gpu(
    settings: list[str], pinned: set[int], has_gpu: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    for function in ("current_device_index", "set_device_index"):  # called for the thread that pins
        monkeypatch.setattr(torch.accelerator, function, lambda *index: 0)
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *SHORTENINGS["conv"], f"data.num_workers={workers}"])
    bundle, examples = open_training(recipe)
    (batch,) = micro_batches(recipe, bundle, examples, False)
    assert {id(tensor) in pinned for tensor in tensors(batch)} == {has_gpu}
