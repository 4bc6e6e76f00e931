"""Examples as tensors: every position of the batch is known here, so the model only fills them in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from signllava_cli.data.examples import Example, Truncation
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class StreamBatch:
    """The frames of one stream of all clips, without padding, and where they go.

    `frames`: float16 (F, width). `positions` (F,), `opens` (C,), `closes` (C,): int64 indices into the
    batch flattened to B * L, of the frames and of the boundary vectors around each of C clips.
    """

    frames: Tensor
    positions: Tensor
    opens: Tensor
    closes: Tensor


@dataclass(frozen=True)
class Batch:
    """B sequences of at most L positions.

    `input_ids`, `attention_mask`: int64 (B, L); at stream positions and at padding the id is `pad_id` and
    means nothing. `targets`: int64 (N,), the answer tokens of all clips. `predictors`: int64 (N,), the
    flattened position whose hidden state predicts each. `streams`: in the recipe's order, every stream,
    also one that no clip of this batch has. `behind_prefix`: the positions of constant text that are left out at the
    start of each sequence, for a model that reuses them.
    """

    clips: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    predictors: Tensor
    streams: dict[str, StreamBatch]
    truncation: Truncation
    prefix_len: int = 0

    @property
    def positions(self) -> int:
        """How many positions the sequences have, the text that is left out of them included."""
        return int(self.attention_mask.sum()) + len(self.clips) * self.prefix_len

    @property
    def padding(self) -> int:
        """How many positions only fill the shorter sequences up."""
        return self.attention_mask.numel() - int(self.attention_mask.sum())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; frames travel as float16."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            predictors=self.predictors.to(device, non_blocking=True),
            streams={
                name: StreamBatch(*(t.to(device, non_blocking=True) for t in vars(stream).values()))
                for name, stream in self.streams.items()
            },
        )


Collate = Callable[[Sequence[Example]], "Batch"]


def collate_examples(
    examples: Sequence[Example],
    widths: dict[str, int],
    pad_id: int,
    pad_side: Literal["left", "right"],
    prefix_len: bool = False,
) -> Batch:
    """The batch of `examples`; `widths` names every stream of the recipe and its width.

    Training pads on the right. Generation pads on the left, because new tokens follow the last position.
    The last answer token is predicted but never read, so it takes no position. `behind_prefix` leaves out the
    text before the streams, which is the same in every prompt.
    """
    befores = [() if prefix_len else example.prompt.before for example in examples]
    lengths = [
        example.seq_len - len(example.prompt.before) + len(before) - bool(example.answer)
        for example, before in zip(examples, befores, strict=True)
    ]
    longest = max(lengths)
    ids = np.full((len(examples), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(examples), longest), dtype=np.int64)
    predictors: list[np.ndarray] = []
    indices: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in widths}
    for row, (example, before, length) in enumerate(zip(examples, befores, lengths, strict=True)):
        start = longest - length if pad_side == "left" else 0
        mask[row, start : start + length] = 1
        at = start
        ids[row, at : at + len(before)] = before
        at += len(before)
        for name in widths:
            if name in example.streams:
                indices[name].append((row * longest + at, example.streams[name]))
                at += len(example.streams[name]) + 2
        ids[row, at : at + len(example.prompt.after)] = example.prompt.after
        at += len(example.prompt.after)
        read = example.answer[:-1]
        ids[row, at : at + len(read)] = read
        predictors.append(row * longest + at - 1 + np.arange(len(example.answer)))
    targets = np.array([token for example in examples for token in example.answer], dtype=np.int64)
    return Batch(
        clips=tuple(example.id for example in examples),
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        targets=torch.from_numpy(targets),
        predictors=torch.from_numpy(np.concatenate(predictors)),
        streams={name: _stream_batch(indices[name], width) for name, width in widths.items()},
        truncation=sum((example.truncation for example in examples), Truncation()),
        prefix_len=len(examples[0].prompt.before) if prefix_len else 0,
    )


def training_collator(recipe: Recipe, pad_id: int, prefix_len: bool = False) -> Collate:
    """What makes a training batch of examples, padded on the right; see `make_batch`."""
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    return partial(collate_examples, widths=widths, pad_id=pad_id, pad_side="right", prefix_len=prefix_len)


def _stream_batch(indices: list[tuple[int, np.ndarray]], width: int) -> StreamBatch:
    """`places`: for each clip the flattened position of its opening boundary, and its frames (T, width)."""
    frames = [clip for _, clip in indices]
    opens = np.array([open_ for open_, _ in indices], dtype=np.int64)
    closes = np.array([open_ + len(clip) + 1 for open_, clip in indices], dtype=np.int64)
    positions = [open_ + 1 + np.arange(len(clip)) for open_, clip in indices]
    return StreamBatch(
        frames=torch.from_numpy(np.concatenate([*frames, np.empty((0, width), np.float16)])),
        positions=torch.from_numpy(np.concatenate([*positions, np.empty(0, np.int64)]).astype(np.int64)),
        opens=torch.from_numpy(opens),
        closes=torch.from_numpy(closes),
    )
