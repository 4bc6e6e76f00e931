"""Batches: the indices of frames, boundary vectors and targets are right for any batch size and padding side."""

import numpy as np
import pytest
import torch

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.data.examples import Example, Truncation
from signllava_cli.data.prompts import Prompt
from signllava_cli.recipe import Stream

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
