"""Which clips may be decoded now: all of them, or each recording's next."""

import heapq
from collections import deque
from collections.abc import Sequence

from signllava_cli.data.annotations import Clip


class Frontier:
    """The clips that wait to be decoded.

    Free, the longest come first, so that prompts of like length are read together and the last batch is short work.
    `in_order`, a recording's next clip becomes ready when the one before it is done, and the recordings with the most
    clips left come first: the last batches are full as long as can be.

    Args:
        clips: those that wait, in dataset order.
        frames: how many frames each has.
    """

    def __init__(self, clips: Sequence[Clip], frames: Sequence[int], in_order: bool) -> None:
        queues: dict[str, deque[Clip]] = {}
        if in_order:
            for clip in clips:
                queues.setdefault(clip.recording, deque()).append(clip)
        else:
            longest_first = sorted(range(len(clips)), key=lambda place: -frames[place])
            queues = {clips[place].id: deque([clips[place]]) for place in longest_first}
        self._queues = queues
        self._order = {name: place for place, name in enumerate(queues)}
        self._in_order = in_order
        self._ready = [self._rank(name) for name in queues]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        """Whether clips wait, ready or not."""
        return bool(self._queues)

    def take(self, count: int) -> list[Clip]:
        """At most `count` of the ready clips, which leave the frontier."""
        taken: list[Clip] = []
        while self._ready and len(taken) < count:
            *_, name = heapq.heappop(self._ready)
            taken.append(self._queues[name].popleft())
            if not self._queues[name]:
                del self._queues[name]
        return taken

    def done(self, clip: Clip) -> None:
        """`clip` is decoded: the next one of its recording is ready."""
        if self._in_order and clip.recording in self._queues:
            heapq.heappush(self._ready, self._rank(clip.recording))

    def _rank(self, name: str) -> tuple[int, int, str]:
        return -len(self._queues[name]), self._order[name], name
