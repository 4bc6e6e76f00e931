"""Cuts a video at pauses in the signing, by the landmarks of its hands."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.keypoints import BODY, LEFT_HAND, RIGHT_HAND, SHOULDERS
from signllava_cli.prepare.extract.landmarks import FrameLandmarks

LOOK_BACK = 0.2  # seconds over which movement is measured, and that a segment keeps of the stillness around it
MOVEMENT = 0.1  # shoulder widths that the points of a hand move in this time, on average, while somebody signs
PAUSE = 0.5  # seconds of stillness between two segments
SHORTEST = 0.3  # seconds of movement below which it is no signing


@dataclass(frozen=True)
class Segment:
    """The frames between two pauses. `end`: the time of the first frame after them; None: the video ends."""

    frames: list[FrameLandmarks]
    end: float | None


class PauseCutter:
    """Finds segments while frames arrive.

    A frame is still if no hand has moved by more than `MOVEMENT` within `LOOK_BACK`; a missing hand does not move.
    `num_short`: movements that were too short to be signing.
    """

    def __init__(self) -> None:
        self._frames: deque[FrameLandmarks] = deque()  # from `LOOK_BACK` before the movement, or before now
        self._first_moving: float | None = None
        self._last_moving = 0.0
        self.num_short = 0

    def add(self, frame: FrameLandmarks) -> Iterator[Segment]:
        """The segment that ends with this frame, if any."""
        self._frames.append(frame)
        if self._is_moving(frame):
            self._first_moving = frame.time if self._first_moving is None else self._first_moving
            self._last_moving = frame.time
        elif self._first_moving is not None and frame.time - self._last_moving >= PAUSE:
            yield from self._take_segment()
        if self._first_moving is None:
            while self._frames[0].time < frame.time - LOOK_BACK:
                self._frames.popleft()

    def finish(self) -> Iterator[Segment]:
        """The segment that ends with the video, if any."""
        if self._first_moving is not None:
            yield from self._take_segment()

    def _is_moving(self, frame: FrameLandmarks) -> bool:
        if BODY not in frame.parts:
            return False
        width = np.linalg.norm(np.subtract(*frame.parts[BODY][SHOULDERS]))
        for earlier in reversed(self._frames):
            if earlier.time < frame.time - LOOK_BACK:
                return False
            for hand in (LEFT_HAND, RIGHT_HAND):
                if hand in frame.parts and hand in earlier.parts:
                    steps = np.linalg.norm(frame.parts[hand] - earlier.parts[hand], axis=1)
                    if steps.mean() > MOVEMENT * width:
                        return True
        return False

    def _take_segment(self) -> Iterator[Segment]:
        assert self._first_moving is not None
        first, last = self._first_moving, self._last_moving
        self._first_moving = None
        if last - first < SHORTEST:
            self.num_short += 1
            return
        frames = [frame for frame in self._frames if frame.time <= last + LOOK_BACK]
        rest = [frame for frame in self._frames if frame.time > last + LOOK_BACK]
        self._frames = deque(rest or frames[-1:])
        yield Segment(frames, rest[0].time if rest else None)
