"""Checks of the caller's inputs, and features prepared as in training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from signllava_cli.data.feature_stream import count_kept_frames, subsample
from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream, is_unicode


class InvalidInput(UserError, ValueError):
    """An argument of the API cannot be used; the message says which one, why, and what is expected."""


def check_features(features: Mapping[str, Any], streams: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    """`features` as float16 arrays (T, width), in the model's order of streams, subsampled as in training.

    Args:
        features: stream name -> numpy array or torch tensor of numbers, (T, width), on any device.
        streams: those that the model knows.

    Raises:
        InvalidInput: no stream, an unknown one, another shape, no frames, or values that are not finite in float16.
    """
    if not isinstance(features, Mapping) or not features:
        raise InvalidInput(
            f"features: expected a dict of stream name to array (T, width); known are {_list_streams(streams)}."
        )
    if unknown := sorted(str(name) for name in features if name not in streams):
        raise InvalidInput(
            f"features: the model knows no stream {', '.join(unknown)}; it knows {_list_streams(streams)}."
        )
    return {name: check_frames(name, features[name], config) for name, config in streams.items() if name in features}


def check_frames(name: str, frames: Any, config: Stream) -> np.ndarray:
    """The frames (T, width) of one stream as float16, without those that `stride` and `max_frames` remove.

    Raises:
        InvalidInput: as in `check_features`.
    """
    array = frames.detach().cpu().float().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"features[{name!r}]: expected numbers, got an array of {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != config.width or not len(array):
        raise InvalidInput(
            f"features[{name!r}]: shape {tuple(array.shape)}, but the model takes (T, {config.width}) with T > 0."
        )
    with np.errstate(over="ignore"):
        frames16 = np.ascontiguousarray(array[:: config.stride]).astype(np.float16)
    num_kept = int(count_kept_frames(np.array([len(array)]), config)[0])
    frames16 = frames16 if len(frames16) == num_kept else subsample(frames16, num_kept)
    if not np.isfinite(frames16).all():
        raise InvalidInput(f"features[{name!r}]: has NaN, infinity, or values beyond the range of float16.")
    return frames16


def check_text(name: str, text: Any) -> str:
    """`text`, the argument `name`, if it is a string of valid Unicode.

    Raises:
        InvalidInput: it is not a string, or has a lone surrogate.
    """
    if not isinstance(text, str) or not is_unicode(text):
        raise InvalidInput(f"{name}: expected a text, got {text!r:.80}.")
    return text


def _list_streams(streams: Mapping[str, Stream]) -> str:
    return ", ".join(f"{name} ({config.width})" for name, config in streams.items())
