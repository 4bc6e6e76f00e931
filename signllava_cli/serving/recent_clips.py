"""The inputs of the clips that were translated last, for questions about which frames were read for their words."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from signllava_cli.api.answer_attention import AnswerAttention
from signllava_cli.api.translator import Features, SignLlava, Translation

MAX_BYTES = 64 * 2**20  # of the features that are in memory
MAX_CLIPS = 2000


@dataclass(frozen=True)
class RecentClip:
    """A translated clip. `read`: gives its features, which take `num_bytes` of memory.

    Not the `Translation`, which holds features too.
    """

    read: Callable[[], Features]
    num_bytes: int
    text: str
    context: tuple[str, ...]
    prelude: int

    def attention(self, model: SignLlava) -> AnswerAttention:
        """Which frames were read for which word of its translation.

        Raises:
            UserError: the LLM does not let its attention be read, or the features cannot be read any more.
        """
        return model.attention(self.read(), self.text, self.context, self.prelude)


class RecentClips:
    """The last clips by a random key, which only the client that had them translated knows. Threads may share it."""

    def __init__(self) -> None:
        self._clips: OrderedDict[str, RecentClip] = OrderedDict()
        self._lock, self._num_bytes = threading.Lock(), 0

    def add(self, clip: RecentClip) -> str:
        """Keep `clip`, and return its key; the oldest ones are dropped above a limit of bytes and of clips."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._clips[key] = clip
            self._num_bytes += clip.num_bytes
            while self._num_bytes > MAX_BYTES or len(self._clips) > MAX_CLIPS:
                _, oldest = self._clips.popitem(last=False)
                self._num_bytes -= oldest.num_bytes
        return key

    def add_features(self, features: Features, translation: Translation, prelude: int) -> str:
        """As `add`, for a clip whose features are kept in memory, as float16 like the model reads them."""
        kept = {name: np.asarray(frames).astype(np.float16) for name, frames in features.items()}
        num_bytes = sum(frames.nbytes for frames in kept.values())
        return self.add(RecentClip(lambda: kept, num_bytes, translation.text, translation.context, prelude))

    def get(self, key: str) -> RecentClip | None:
        """The clip of `key`; None if there is none, or not any more."""
        with self._lock:
            return self._clips.get(key)
