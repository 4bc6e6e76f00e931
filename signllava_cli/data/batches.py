"""Collates examples into tensors, with the index of every token, embedding and boundary vector in the batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from signllava_cli.data.examples import BOUNDARY_VECTORS, Example, Truncation
from signllava_cli.data.projector_inputs import ProjectorInput, projector_inputs
from signllava_cli.recipe import Recipe, Stream


@dataclass(frozen=True)
class StreamBatch:
    """The frames of C clips for one projector, concatenated without padding, and where its output goes in the batch.

    `frames`: float16 (F, width). `windows`: for each window layer of the projector, int64 (outputs, kernel), the
    frames that each output reads, counted from 1 (0 is a frame of zeros); a window never reads two clips.
    `embedding_indices`: int64 (E,), of the E embeddings; without windows E is F. `start_indices`, `end_indices`:
    int64 (C,), of the boundary vectors before and after each clip's embeddings. All three are indices into the batch
    flattened to B * L.
    """

    frames: Tensor
    windows: tuple[Tensor, ...]
    embedding_indices: Tensor
    start_indices: Tensor
    end_indices: Tensor

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> "StreamBatch":
        """The batch with `function` of each tensor in its place."""
        return StreamBatch(
            function(self.frames),
            tuple(map(function, self.windows)),
            function(self.embedding_indices),
            function(self.start_indices),
            function(self.end_indices),
        )


@dataclass(frozen=True)
class Batch:
    """B sequences, padded to length L.

    `input_ids`, `attention_mask`: int64 (B, L); the id is `pad_id`, and ignored, at padding and where an embedding of
    frames or a boundary vector goes. `targets`: int64 (N,), the answer tokens of all clips. `logit_indices`: int64
    (N,), the index into the batch flattened to B * L of the hidden state that predicts each target. `streams`: by
    name, the input of every projector, in the order of the recipe; one that no clip of this batch has is empty.
    `prefix_len`: the number of tokens of constant text that are omitted at the start of each sequence, for a model
    with a prefix cache.
    """

    clips: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    logit_indices: Tensor
    streams: dict[str, StreamBatch]
    truncation: Truncation
    prefix_len: int = 0

    @property
    def num_tokens(self) -> int:
        """The length of all sequences together, the omitted prefixes included and padding excluded."""
        return int(self.attention_mask.sum()) + len(self.clips) * self.prefix_len

    @property
    def num_padding(self) -> int:
        """The number of padding tokens."""
        return self.attention_mask.numel() - int(self.attention_mask.sum())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; frames are transferred as float16. The CPU waits only for unpinned memory."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory. torch's DataLoader calls this."""
        return self._map_tensors(Tensor.pin_memory)

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            input_ids=function(self.input_ids),
            attention_mask=function(self.attention_mask),
            targets=function(self.targets),
            logit_indices=function(self.logit_indices),
            streams={name: stream.map_tensors(function) for name, stream in self.streams.items()},
        )


Collate = Callable[[Sequence[Example]], "Batch"]


def collate_examples(
    examples: Sequence[Example],
    streams: Mapping[str, Stream],
    pad_id: int,
    pad_side: Literal["left", "right"],
    omit_prefix: bool = False,
) -> Batch:
    """The batch of `examples`.

    Training pads on the right. Generation pads on the left, because new tokens follow the last one. The last answer
    token is predicted but never an input, so it is no part of the sequence.

    Args:
        streams: the section `streams` of the recipe.
        omit_prefix: omit the text before the streams, which is the same in every prompt.
    """
    prefixes = [() if omit_prefix else example.prompt.before for example in examples]
    lengths = [
        example.seq_len - len(example.prompt.before) + len(prefix) - bool(example.answer)
        for example, prefix in zip(examples, prefixes, strict=True)
    ]
    max_len = max(lengths)
    ids = np.full((len(examples), max_len), pad_id, dtype=np.int64)  # (B, L)
    mask = np.zeros((len(examples), max_len), dtype=np.int64)  # (B, L)
    logit_indices: list[np.ndarray] = []
    inputs = projector_inputs(streams)
    segments: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in inputs}
    for row, (example, prefix, length) in enumerate(zip(examples, prefixes, lengths, strict=True)):
        column = max_len - length if pad_side == "left" else 0
        mask[row, column : column + length] = 1
        ids[row, column : column + len(prefix)] = prefix
        column += len(prefix)
        for name, projector_input in inputs.items():
            if name in example.streams:
                segments[name].append((row * max_len + column, example.streams[name]))
                column += projector_input.count_embeddings(len(example.streams[name])) + BOUNDARY_VECTORS
        ids[row, column : column + len(example.prompt.after)] = example.prompt.after
        column += len(example.prompt.after)
        answer_inputs = example.answer[:-1]
        ids[row, column : column + len(answer_inputs)] = answer_inputs
        logit_indices.append(row * max_len + column - 1 + np.arange(len(example.answer)))
    targets = np.array([token for example in examples for token in example.answer], dtype=np.int64)  # (N,)
    return Batch(
        clips=tuple(example.id for example in examples),
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        targets=torch.from_numpy(targets),
        logit_indices=torch.from_numpy(np.concatenate(logit_indices)),
        streams={name: _stream_batch(segments[name], projector_input) for name, projector_input in inputs.items()},
        truncation=sum((example.truncation for example in examples), Truncation()),
        prefix_len=len(examples[0].prompt.before) if omit_prefix else 0,
    )


def training_collator(recipe: Recipe, pad_id: int, omit_prefix: bool = False) -> Collate:
    """The collate function of training: `collate_examples`, padded on the right."""
    return partial(collate_examples, streams=recipe.streams, pad_id=pad_id, pad_side="right", omit_prefix=omit_prefix)


def _stream_batch(segments: list[tuple[int, np.ndarray]], projector_input: ProjectorInput) -> StreamBatch:
    """`segments`: for each clip the flattened index of its first boundary vector, and its frames (T, width)."""
    frames = [clip_frames for _, clip_frames in segments]
    num_frames = np.array([len(clip_frames) for clip_frames in frames], dtype=np.int64)  # (C,)
    num_embeddings = projector_input.count_embeddings(num_frames)  # (C,)
    start_indices = np.array([start for start, _ in segments], dtype=np.int64)  # (C,)
    embedding_indices = [
        start + 1 + np.arange(count) for start, count in zip(start_indices, num_embeddings, strict=True)
    ]
    return StreamBatch(
        frames=torch.from_numpy(np.concatenate([*frames, np.empty((0, projector_input.width), np.float16)])),
        windows=tuple(map(torch.from_numpy, projector_input.window_indices(num_frames))),
        embedding_indices=torch.from_numpy(np.concatenate([*embedding_indices, np.empty(0, np.int64)])),  # (E,)
        start_indices=torch.from_numpy(start_indices),
        end_indices=torch.from_numpy(start_indices + num_embeddings + 1),  # (C,)
    )
