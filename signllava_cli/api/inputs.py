"""Checks of the caller's inputs, and features prepared as in training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from signllava_cli.data.feature_stream import subsample
from signllava_cli.data.projector_inputs import cut_to_shortest, projector_inputs
from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream, is_unicode


class InvalidInput(UserError, ValueError):
    """An argument of the API cannot be used; the message says which one, why, and what is expected."""


def check_features(features: Mapping[str, Any], streams: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    """`features` as float16 arrays (T, width), in the model's order of streams, subsampled as in training.

    Joined streams are cut to the shortest of them.

    Args:
        features: stream name -> numpy array or torch tensor of numbers, (T, width), on any device.
        streams: those that the model knows.

    Raises:
        InvalidInput: no stream, an unknown one, another shape, no frames, values that are not finite in float16, or
            joined streams whose lengths differ by more than a few frames.
    """
    if not isinstance(features, Mapping) or not features:
        raise InvalidInput(
            f"features: expected a dict of stream name to array (T, width); known are {_list_streams(streams)}."
        )
    if unknown := sorted(str(name) for name in features if name not in streams):
        raise InvalidInput(
            f"features: the model knows no stream {', '.join(unknown)}; it knows {_list_streams(streams)}."
        )
    arrays = {
        name: _check_array(name, features[name], config) for name, config in streams.items() if name in features
    }
    indices = kept_frames({name: len(array) for name, array in arrays.items()}, streams)
    return {name: _as_float16(name, array[indices[name]]) for name, array in arrays.items()}


def kept_frames(lengths: Mapping[str, int], streams: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    """The frames of each stream that the model reads, unless a clip is truncated: int64 (T,), in playing order.

    Args:
        lengths: the number of frames of each stream of a clip.

    Raises:
        InvalidInput: joined streams whose lengths differ by more than a few frames.
    """
    strided = {name: np.arange(length)[:: streams[name].stride] for name, length in lengths.items()}
    for projector_input in projector_inputs(streams).values():
        joined = {name: len(strided[name]) for name in projector_input.streams if name in strided}
        if len(joined) > 1:
            try:
                shortest = cut_to_shortest(joined, "features")
            except UserError as error:
                raise InvalidInput(str(error)) from None
            strided |= {name: strided[name][:shortest] for name in joined}
    limits = {name: streams[name].max_frames for name in strided}
    return {
        name: indices if (limit := limits[name]) is None or len(indices) <= limit else subsample(indices, limit)
        for name, indices in strided.items()
    }


def _check_array(name: str, frames: Any, config: Stream) -> np.ndarray:
    """The frames (T, width) of one stream as an array of numbers.

    Raises:
        InvalidInput: they are not numbers, of another shape, or none.
    """
    if isinstance(frames, Mapping):
        raise InvalidInput(f"features[{name!r}]: expected the array of this stream, got a dictionary.")
    array = frames.detach().cpu().float().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"features[{name!r}]: expected numbers, got an array of {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != config.width or not len(array):
        raise InvalidInput(
            f"features[{name!r}]: shape {tuple(array.shape)}, but the model takes (T, {config.width}) with T > 0."
        )
    return array


def _as_float16(name: str, array: np.ndarray) -> np.ndarray:
    """The frames (T, width) as float16.

    Raises:
        InvalidInput: a value is not finite in float16.
    """
    with np.errstate(over="ignore"):
        frames = np.ascontiguousarray(array).astype(np.float16)
    if not np.isfinite(frames).all():
        raise InvalidInput(f"features[{name!r}]: has NaN, infinity, or values beyond the range of float16.")
    return frames


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
