"""The chunked loss against cross-entropy on all logits."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from signllava_cli.model import loss as module
from signllava_cli.model.loss import summed_loss

NUM_TARGETS, CHUNK = 11, 4
KINDS = ["whole", "partitioned"]


class Head(nn.Module):
    """A head that counts its calls, and the hidden states of each."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 9, dtype=dtype).requires_grad_(False)
        self.calls: list[int] = []

    def forward(self, states: Tensor) -> Tensor:
        self.calls.append(len(states))
        logits: Tensor = self.linear(states)
        return logits


@pytest.fixture(params=KINDS)
def head(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Head:
    """A head whose weights ZeRO-3 does not partition, or one of which it does."""
    monkeypatch.setattr(module, "TARGETS_PER_CHUNK", CHUNK)
    head = Head()
    if request.param == "partitioned":
        head.linear.bias.ds_id = 0  # type: ignore[attr-defined]
    return head


def states_and_targets(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(NUM_TARGETS, 6, generator=generator).to(dtype).requires_grad_()
    return states, torch.randint(9, (NUM_TARGETS,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_equal_those_of_all_logits(head: Head, smoothing: float) -> None:
    states, targets = states_and_targets()
    expected = F.cross_entropy(head.linear(states), targets, label_smoothing=smoothing, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(2.5 * expected, states)
    loss = summed_loss(head, states, targets, smoothing)
    (gradient,) = torch.autograd.grad(2.5 * loss, states)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(summed_loss(head, states.detach(), targets, smoothing), expected.detach())


def test_labels_are_not_smoothed_by_default(head: Head) -> None:
    states, targets = states_and_targets()
    torch.testing.assert_close(summed_loss(head, states, targets), summed_loss(head, states, targets, 0.0))


def test_no_more_logits_than_a_chunk_are_in_memory(head: Head) -> None:
    """Without ZeRO-3 each is computed once; with it, once more in the backward pass of the model."""
    states, targets = states_and_targets()
    loss = summed_loss(head, states, targets)
    assert head.calls == [4, 4, 3]
    loss.backward()
    is_partitioned = hasattr(head.linear.bias, "ds_id")
    assert sorted(head.calls) == sorted([4, 4, 3] * (1 + is_partitioned))


def test_a_chunk_is_of_1024_targets() -> None:
    """1024 x 128,256 float32 logits take 0.5 GB."""
    head = Head()
    states = torch.zeros(1025, 6)
    summed_loss(head, states, torch.zeros(1025, dtype=torch.int64))
    assert head.calls == [1024, 1]


def test_without_gradients_nothing_is_kept(head: Head) -> None:
    states, targets = states_and_targets()
    assert not summed_loss(head, states.detach(), targets).requires_grad
    with torch.no_grad():
        assert not summed_loss(head, states, targets).requires_grad
    head.linear.requires_grad_(True)  # of a head that is not frozen, no gradient is computed
    if not hasattr(head.linear.bias, "ds_id"):
        summed_loss(head, states, targets).backward()
        assert head.linear.weight.grad is None


def test_evaluation_builds_no_graph_although_the_head_learns(head: Head) -> None:
    """The dev loss calls the head outside of `no_grad` of its weights; its logits must not keep their graph."""
    states, targets = states_and_targets()
    head.linear.requires_grad_(True)
    graphs: list[bool] = []
    head.linear.register_forward_hook(lambda layer, arguments, logits: graphs.append(logits.requires_grad))
    loss = summed_loss(head, states.detach(), targets)
    assert graphs == [False] * 3
    assert not loss.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_16_bit_states_is_summed_in_float32(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TARGETS_PER_CHUNK", CHUNK)
    head = Head(torch.bfloat16)
    if kind == "partitioned":
        head.linear.bias.ds_id = 0  # type: ignore[attr-defined]
    states, targets = states_and_targets(torch.bfloat16)
    loss = summed_loss(head, states, targets)
    expected = F.cross_entropy(head.linear(states).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, states)
    assert gradient.dtype == torch.bfloat16


@pytest.mark.parametrize("count", [NUM_TARGETS - 1, 2 * CHUNK])
def test_states_without_a_target_are_an_error(head: Head, count: int) -> None:
    states, targets = states_and_targets()
    for given in (states, states.detach()):
        with pytest.raises(ValueError, match=r"batch_size|shorter"):
            summed_loss(head, given, targets[:count])
