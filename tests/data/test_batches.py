"""Batches: the indices of frames, boundary vectors and targets are right for any batch size and padding side."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from signllava_cli.data.batches import Batch, collate_examples, training_collator
from signllava_cli.data.examples import Example, Truncation
from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.data.prompts import Prompt
from signllava_cli.recipe import Stream, read_recipe

STREAMS = {"mae": Stream(width=2), "pose": Stream(width=3)}
PAD = 99


def example(number: int, mae: int, pose: int, answer: tuple[int, ...]) -> Example:
    streams = {
        name: np.full((frames, STREAMS[name].width), 10 * number + frames, np.float16)
        for name, frames in (("mae", mae), ("pose", pose))
        if frames
    }
    after = tuple(range(20, 20 + number))
    return Example(
        f"r/{number}",
        streams,
        {name: len(frames) for name, frames in streams.items()},
        (),
        Prompt((1, 2), after),
        answer,
        Truncation(),
    )


def to_strings(batch: Batch) -> list[list[str]]:
    """The tokens, frames and boundary vectors of each row as strings, without padding."""
    rows, length = batch.input_ids.shape
    flat = [str(int(token)) for token in batch.input_ids.flatten()]
    for name, stream in batch.streams.items():
        for index in stream.start_indices.tolist():
            flat[index] = f"<{name}>"
        for index in stream.end_indices.tolist():
            flat[index] = f"</{name}>"
        for index, frame in zip(stream.embedding_indices.tolist(), stream.frames, strict=True):
            flat[index] = f"{name}{int(frame[0])}"
    mask = batch.attention_mask.flatten().tolist()
    return [[flat[index] for index in range(row * length, (row + 1) * length) if mask[index]] for row in range(rows)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_contain_prompt_streams_and_answer_in_order(side: str) -> None:
    examples = [example(1, 2, 1, (7, 8, 9)), example(3, 0, 2, (5, 6)), example(2, 1, 3, (4,))]
    batch = collate_examples(examples, STREAMS, PAD, side)  # type: ignore[arg-type]
    one, three, two = to_strings(batch)
    assert one == [
        "1",
        "2",
        "<mae>",
        "mae12",
        "mae12",
        "</mae>",
        "<pose>",
        "pose11",
        "</pose>",
        "20",
        "7",
        "8",
    ]
    assert three == ["1", "2", "<pose>", "pose32", "pose32", "</pose>", "20", "21", "22", "5"]
    assert two == [
        *("1", "2", "<mae>", "mae21", "</mae>", "<pose>"),
        *("pose23", "pose23", "pose23", "</pose>", "20", "21"),
    ]
    mask = batch.attention_mask
    assert mask[:, -1 if side == "left" else 0].all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_targets_are_right_at_every_batch_size(side: str, size: int) -> None:
    """The logit index of a target is the index before the one where the target is, or would be, an input."""
    rng = np.random.default_rng(size)
    examples = [
        example(k + 1, int(rng.integers(1, 9)), int(rng.integers(0, 5)), tuple(rng.integers(30, 90, 1 + k % 4)))
        for k in range(size)
    ]
    batch = collate_examples(examples, STREAMS, PAD, side)  # type: ignore[arg-type]
    length, target_index = batch.input_ids.shape[1], 0
    for row, one in enumerate(examples):
        first = batch.logit_indices[target_index].item()
        end_of_prompt = (row * length) + (
            length - 1 - (len(one.answer) - 1) if side == "left" else one.seq_len - len(one.answer) - 1
        )
        assert first == end_of_prompt
        for token in one.answer:
            assert batch.targets[target_index] == token
            if target_index + 1 < len(batch.targets) and token != one.answer[-1]:
                assert batch.input_ids.flatten()[batch.logit_indices[target_index] + 1] == token
            target_index += 1
    assert target_index == len(batch.targets) == len(batch.logit_indices)


def test_a_stream_that_no_clip_has_is_empty() -> None:
    batch = collate_examples([example(1, 2, 0, (7,))], STREAMS, PAD, "right")
    assert batch.streams["pose"].frames.shape == (0, 3)
    assert batch.streams["pose"].frames.dtype == torch.float16
    assert batch.streams["pose"].start_indices.shape == (0,)
    stream = batch.streams["pose"]
    assert stream.start_indices.dtype == stream.end_indices.dtype == stream.embedding_indices.dtype == torch.int64


SHORTENED = {"mae": Stream(width=2, stack=3), "pose": Stream(width=3)}


def slow_batch(examples: list[Example], side: str, omit_prefix: bool) -> dict[str, list[Any]]:
    """What stands at each index of the batch, and the target that it predicts, without any arithmetic of indices."""
    rows = []
    for one in examples:
        kinds: list[tuple[str, Any]] = [] if omit_prefix else [("token", token) for token in one.prompt.before]
        for name, stream in SHORTENED.items():
            if name in one.streams:
                count = -(-len(one.streams[name]) // stream.stack)
                kinds += [(f"{name} start", PAD), *((f"{name} embedding", PAD),) * count, (f"{name} end", PAD)]
        kinds += [("token", token) for token in (*one.prompt.after, *one.answer[:-1])]
        predicted = [None] * (len(kinds) - len(one.answer)) + list(one.answer)
        rows.append([(*kind, target) for kind, target in zip(kinds, predicted, strict=True)])
    length = max(map(len, rows))
    flat: list[Any] = []
    for row in rows:
        padding: list[Any] = [("padding", PAD, None)] * (length - len(row))
        flat += [*padding, *row] if side == "left" else [*row, *padding]
    kinds_of_indices = [f"{name} {kind}" for name in SHORTENED for kind in ("start", "embedding", "end")]
    return {
        **{kind: [index for index, cell in enumerate(flat) if cell[0] == kind] for kind in kinds_of_indices},
        "ids": [cell[1] for cell in flat],
        "mask": [int(cell[0] != "padding") for cell in flat],
        "targets": [cell[2] for cell in flat if cell[2] is not None],
        "logit indices": [index for index, cell in enumerate(flat) if cell[2] is not None],
    }


def shortened(one: Example) -> Example:
    """`one` with the embeddings that the projectors of `SHORTENED` make, and with a truncation to count."""
    counts = {name: -(-len(frames) // SHORTENED[name].stack) for name, frames in one.streams.items()}
    return replace(one, num_embeddings=counts, truncation=Truncation(2, 1))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("omit_prefix", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_every_index_is_where_a_slow_loop_puts_it(side: str, omit_prefix: bool, count: int) -> None:
    """With a projector that stacks three frames, clips that lack a stream, and a clip without an answer."""
    sizes = [(1, 7, 1), (3, 0, 2), (2, 3, 0), (4, 2, 5)]
    answers: list[tuple[int, ...]] = [(7, 8, 9), (5, 6), (4,), ()]
    examples = [shortened(example(*size, answer)) for size, answer in zip(sizes, answers, strict=True)][:count]
    batch = collate_examples(examples, SHORTENED, PAD, side, omit_prefix)  # type: ignore[arg-type]
    expected = slow_batch(examples, side, omit_prefix)
    assert batch.input_ids.flatten().tolist() == expected["ids"]
    assert batch.attention_mask.flatten().tolist() == expected["mask"]
    assert batch.targets.tolist() == expected["targets"]
    assert batch.logit_indices.tolist() == expected["logit indices"]
    for name, stream in batch.streams.items():
        assert stream.start_indices.tolist() == expected[f"{name} start"]
        assert stream.embedding_indices.tolist() == expected[f"{name} embedding"]
        assert stream.end_indices.tolist() == expected[f"{name} end"]
        frames = [one.streams[name] for one in examples if name in one.streams]
        assert stream.frames.tolist() == [row for part in frames for row in part.tolist()]
        lengths = np.array([len(part) for part in frames], np.int64)
        windows = projector_inputs(SHORTENED)[name].window_indices(lengths)
        assert [window.tolist() for window in stream.windows] == [window.tolist() for window in windows]
        assert len(stream.windows) == (name == "mae")
    dtypes = {name: tensor.dtype for name, tensor in all_tensors(batch).items()}
    assert {dtype for name, dtype in dtypes.items() if "frames" not in name} == {torch.int64}
    assert dtypes["mae frames"] == dtypes["pose frames"] == torch.float16
    assert list(batch.streams) == list(SHORTENED)
    assert batch.clips == tuple(one.id for one in examples)
    assert batch.truncation == Truncation(2 * count, count)
    assert batch.prefix_len == (2 if omit_prefix else 0)
    assert batch.num_tokens == sum(one.seq_len - bool(one.answer) for one in examples)
    assert batch.num_padding == expected["mask"].count(0)


def all_tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch by a name."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    for name, stream in batch.streams.items():
        tensors |= {f"{name} {key}": value for key, value in vars(stream).items() if isinstance(value, torch.Tensor)}
        tensors |= {f"{name} window {number}": window for number, window in enumerate(stream.windows)}
    return tensors


def test_a_batch_on_another_device_has_all_its_tensors_there() -> None:
    examples = [shortened(example(1, 7, 1, (7, 8))), shortened(example(2, 2, 2, (9,)))]
    batch = collate_examples(examples, SHORTENED, PAD, "right", omit_prefix=True)
    moved = batch.to(torch.device("meta"))
    before, after = all_tensors(batch), all_tensors(moved)
    assert {tensor.device.type for tensor in after.values()} == {"meta"}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }
    assert len(before) == 4 + 2 * 4 + 1
    for name in ("clips", "truncation", "prefix_len"):
        assert getattr(moved, name) == getattr(batch, name)
    same = batch.to(torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in all_tensors(same).items())


def test_the_cpu_does_not_wait_for_a_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate_examples([example(1, 2, 1, (7, 8))], STREAMS, PAD, "right")
    waits: list[bool] = []
    to: Any = torch.Tensor.to

    def record(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> Any:
        waits.append(not non_blocking)
        return to(tensor, device)

    monkeypatch.setattr(torch.Tensor, "to", record)
    batch.to(torch.device("cpu"))
    assert waits == [False] * 12


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's DataLoader calls `pin_memory`; without a GPU, there is no pinned memory."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = collate_examples([shortened(example(1, 7, 1, (7, 8)))], SHORTENED, PAD, "right")
    pinned = all_tensors(batch.pin_memory())
    assert all(torch.equal(pinned[name], tensor + 1) for name, tensor in all_tensors(batch).items())


def test_training_pads_on_the_right_and_may_omit_the_prefix() -> None:
    recipe = read_recipe("toy/tiny_pretrain", ["streams={mae: {width: 2, stack: 3}, pose: {width: 3}}"])
    examples = [shortened(example(1, 7, 1, (7, 8))), shortened(example(3, 2, 2, (9,)))]
    for omit_prefix in (False, True):
        batch = training_collator(recipe, PAD, omit_prefix)(examples)
        expected = collate_examples(examples, SHORTENED, PAD, "right", omit_prefix)
        assert all(torch.equal(tensor, all_tensors(batch)[name]) for name, tensor in all_tensors(expected).items())
        assert batch.prefix_len == expected.prefix_len
    assert training_collator(recipe, PAD)(examples).prefix_len == 0
    assert collate_examples(examples, SHORTENED, PAD, "left").prefix_len == 0


def test_a_batch_of_generation_has_no_targets() -> None:
    batch = collate_examples([shortened(example(1, 7, 1, ()))], SHORTENED, PAD, "left")
    assert batch.targets.dtype == batch.logit_indices.dtype == torch.int64
    assert len(batch.targets) == len(batch.logit_indices) == 0
    empty = torch.zeros(0)
    assert Batch((), empty, empty, empty, empty, {}, Truncation()).prefix_len == 0
