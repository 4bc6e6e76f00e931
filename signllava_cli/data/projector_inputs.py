"""What each projector reads, and how many embeddings it makes of it: one stream, or streams joined per frame.

A projector may shorten its input by windows over the frames: `stack: k` concatenates k frames (SLAM-ASR,
arXiv:2402.08846; LLaMA-Omni, arXiv:2409.06666), `conv` applies convolutions of a stride (Whisper, arXiv:2212.04356).
SLAM-ASR drops the frames that do not fill the last group; here it is filled with zeros, so that no clip loses its
end. The zeros are added after the layer norm of the input, which sees each frame alone: they change no other number.

The number of embeddings is computed here and nowhere else, from numbers of frames alone: for one clip or for every
clip of an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeVar

import numpy as np

from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream

MAX_CUT = 4  # frames that a joined stream may be longer than the shortest one
Counts = TypeVar("Counts", int, np.ndarray)


@dataclass(frozen=True)
class Window:
    """`kernel` frames in a row, the first one `padding` frames before the start of the clip; the next after `stride`.

    Frames outside of the clip are zeros.
    """

    kernel: int
    stride: int
    padding: int = 0

    def indices(self, num_frames: np.ndarray) -> np.ndarray:
        """The frames in each window of clips whose frames follow each other without padding.

        Args:
            num_frames: of each clip, int64 (C,).

        Returns:
            int64 (windows, kernel): the index of a frame, counted from 1; 0 stands for a frame of zeros.

        >>> Window(kernel=2, stride=2).indices(np.array([3, 2])).tolist()
        [[1, 2], [3, 0], [4, 5]]
        """
        counts = -(-num_frames // self.stride)  # (C,)
        clips = np.repeat(np.arange(len(counts)), counts)  # (windows,)
        numbers = np.arange(len(clips)) - (np.cumsum(counts) - counts)[clips]  # (windows,): each in its clip
        frames = (
            numbers[:, None] * self.stride - self.padding + np.arange(self.kernel)
        )  # (windows, kernel): in the clip
        is_inside = (frames >= 0) & (frames < num_frames[clips, None])
        first = (np.cumsum(num_frames) - num_frames)[clips, None]
        return np.where(is_inside, frames + first + 1, 0)


@dataclass(frozen=True)
class ProjectorInput:
    """The input of one projector, named after its stream, or after the `join` of its streams.

    `streams`: their sections of the recipe; those of joined streams agree about the projector.
    """

    name: str
    streams: dict[str, Stream]

    @property
    def config(self) -> Stream:
        """The settings of the projector."""
        return next(iter(self.streams.values()))

    @property
    def is_joined(self) -> bool:
        """Whether its frames are those of several streams."""
        return len(self.streams) > 1

    @property
    def width(self) -> int:
        """Numbers in one frame: those of all streams."""
        return sum(stream.width for stream in self.streams.values())

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The windows over the frames, applied one after another; none: each frame makes an embedding."""
        stack, conv = self.config.stack, self.config.conv
        if conv is not None:
            return (Window(conv.kernel, conv.stride, (conv.kernel - 1) // 2),) * conv.layers
        return (Window(stack, stack),) if stack > 1 else ()

    @property
    def frames_per_embedding(self) -> int:
        """The frames from one embedding to the next."""
        return prod(window.stride for window in self.windows)

    def count_embeddings(self, num_frames: Counts) -> Counts:
        """The embeddings that the projector makes of `num_frames` frames of a clip, or of each clip (clips,).

        >>> ProjectorInput("mae", {"mae": Stream(width=8, stack=4)}).count_embeddings(9)
        3
        """
        return -(-num_frames // self.frames_per_embedding)

    def window_indices(self, num_frames: np.ndarray) -> tuple[np.ndarray, ...]:
        """For each of `windows`, what each of its outputs reads, as by `Window.indices`.

        Args:
            num_frames: of each clip, int64 (C,).
        """
        indices = []
        for window in self.windows:
            indices.append(window.indices(num_frames))
            num_frames = -(-num_frames // window.stride)
        return tuple(indices)

    def join(self, frames: Mapping[str, np.ndarray]) -> np.ndarray:
        """The frames of the streams side by side, (T, width); of a stream that is not among `frames`, zeros."""
        if not self.is_joined:
            return frames[next(iter(self.streams))]
        some = next(frames[name] for name in self.streams if name in frames)
        return np.concatenate(
            [
                frames[name] if name in frames else np.zeros((len(some), stream.width), some.dtype)
                for name, stream in self.streams.items()
            ],
            axis=1,
        )


def projector_inputs(streams: Mapping[str, Stream]) -> dict[str, ProjectorInput]:
    """The inputs of the projectors by name, in the order of the recipe; a joined one stands at its first stream.

    Args:
        streams: the section `streams` of the recipe.
    """
    groups: dict[str, dict[str, Stream]] = {}
    for name, stream in streams.items():
        groups.setdefault(stream.join or name, {})[name] = stream
    return {name: ProjectorInput(name, members) for name, members in groups.items()}


def join_all(frames: Mapping[str, np.ndarray], inputs: Mapping[str, ProjectorInput]) -> dict[str, np.ndarray]:
    """The frames of each projector's input that a clip has, by the name of the input, in the order of `inputs`."""
    return {
        name: projector_input.join(frames)
        for name, projector_input in inputs.items()
        if projector_input.streams.keys() & frames.keys()
    }


def cut_to_shortest(num_frames: Mapping[str, int], where: str) -> int:
    """The length of joined streams of `num_frames` each: that of the shortest.

    Raises:
        UserError: one is more than `MAX_CUT` frames longer; `where` names the clip.
    """
    shortest = min(num_frames.values())
    if max(num_frames.values()) - shortest > MAX_CUT:
        lengths = ", ".join(f"{name} {count}" for name, count in num_frames.items())
        raise UserError(
            f"{where}: joined streams need the same number of frames per second, but the lengths differ by more than "
            f"{MAX_CUT} frames: {lengths}. Set stride of the faster one, or remove join."
        )
    return shortest
