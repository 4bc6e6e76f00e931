"""What a caller hands over: checked, and features brought to what the model was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from signllava_cli.data.feature_stream import count_kept_frames, subsample
from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream, is_unicode


class InvalidInput(UserError, ValueError):
    """What was handed over cannot be used; the message says what, where, and the fix."""


def check_features(features: Mapping[str, Any], streams: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    """`features` as float16 arrays (T, width), in the model's order of streams, thinned as in training.

    Args:
        features: stream name -> numpy array or torch tensor of numbers, (T, width), on any device.
        streams: those that the model knows.

    Raises:
        BadInput: no stream, an unknown one, another shape, no frames, or values that are not finite in float16.
    """
    if not isinstance(features, Mapping) or not features:
        raise InvalidInput(
            f"features: expected a dict of stream name to array (T, width); known are {_known(streams)}."
        )
    if unknown := sorted(str(name) for name in features if name not in streams):
        raise InvalidInput(f"features: the model knows no stream {', '.join(unknown)}; it knows {_known(streams)}.")
    return {name: check_frames(name, features[name], config) for name, config in streams.items() if name in features}


def check_frames(name: str, frames: Any, config: Stream) -> np.ndarray:
    """One stream's `frames` (T, width) as float16, of which stride and max_frames leave some.

    Raises:
        BadInput: as in `checked_features`.
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
    left = int(count_kept_frames(np.array([len(array)]), config)[0])
    frames16 = frames16 if len(frames16) == left else subsample(frames16, left)
    if not np.isfinite(frames16).all():
        raise InvalidInput(f"features[{name!r}]: holds NaN, infinity, or values that float16 cannot hold.")
    return frames16


def check_text(what: str, text: Any) -> str:
    """`text`, if it is one.

    Raises:
        BadInput: it is no string, or holds half a surrogate pair.
    """
    if not isinstance(text, str) or not is_unicode(text):
        raise InvalidInput(f"{what}: expected a text, got {text!r:.80}.")
    return text


def _known(streams: Mapping[str, Stream]) -> str:
    return ", ".join(f"{name} ({config.width})" for name, config in streams.items())
