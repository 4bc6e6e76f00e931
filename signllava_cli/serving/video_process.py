"""Reads videos in a process of its own: a file that crashes or stalls a decoder ends that process, not the app."""

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from signllava_cli.api.video_features import VideoClip, VideoReader, VideoStreams
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.video_cuts import VideoCut
from signllava_cli.processes import init_worker

STALL_SECONDS = 120.0  # without a new frame; loading the models included
BEAT_SECONDS = 0.5  # between two reports of progress


@dataclass(frozen=True)
class VideoProgress:
    """The number of frames that were read, counted in each pass over them; at the end `num_short` of the reader."""

    frames: int
    num_short: int = 0


class VideoProcess:
    """A process that makes the features of one video after the other; started with the first one."""

    def __init__(self, streams: VideoStreams) -> None:
        self._streams = streams
        self._lock = threading.Lock()
        self._process: Any = None

    @property
    def num_passes(self) -> int:
        """How often each frame is read."""
        return self._streams.num_passes

    def read(
        self, cut: VideoCut, at_pauses: bool, max_frames: int
    ) -> Generator[VideoProgress | VideoClip, None, None]:
        """The clip `cut`, or its segments between pauses, and the progress before each. Videos wait for each other.

        Args:
            max_frames: of the cut.

        Raises:
            UnreadableClip: the video is refused, or ended the process.
            UserError: the models cannot be loaded.
        """
        with self._lock:
            is_complete = False
            try:
                if self._process is None or not self._process.is_alive():
                    self._start()
                self._connection.send((cut, at_pauses, max_frames))
                while (message := self._receive()) is not None:
                    yield message
                is_complete = True
            except UnreadableClip:
                is_complete = self._process is not None  # it has only refused the video
                raise
            finally:
                if not is_complete:  # the caller has left, or the process is broken
                    self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # processes.py says why not fork
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_work, args=(os.getpid(), child, self._streams), daemon=True)
        self._process.start()
        child.close()

    def _receive(self) -> VideoProgress | VideoClip | None:
        """The next message; None: the video is done."""
        try:
            if not self._connection.poll(STALL_SECONDS):
                self.close()
                raise UnreadableClip(f"took more than {STALL_SECONDS:g} s for a frame, and was given up")
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            self.close()
            raise UnreadableClip("crashed the process that read it") from None
        if kind == "unreadable":
            raise UnreadableClip(content)
        if kind == "error":
            raise UserError(content)
        if kind == "bug":
            raise RuntimeError(f"the process that reads videos failed:\n{content}")
        message: VideoProgress | VideoClip | None = content
        return message

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _work(parent: int, connection: Connection, streams: VideoStreams) -> None:
    init_worker(parent)
    reader: VideoReader | None = None
    while True:
        try:
            cut, at_pauses, max_frames = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reader = reader or streams.open()
            beat = _Beat(connection, max_frames * streams.num_passes)
            for clip in _read(reader, cut, at_pauses, beat):
                connection.send(("clip", clip))
            num_short = reader.num_short if at_pauses else 0
            connection.send(("progress", VideoProgress(beat.num_frames, num_short)))
            connection.send(("done", None))
        except UnreadableClip as error:
            connection.send(("unreadable", str(error)))
        except UserError as error:
            connection.send(("error", str(error)))
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:
            connection.send(("bug", traceback.format_exc()))


def _read(reader: VideoReader, cut: VideoCut, at_pauses: bool, beat: "_Beat") -> Iterator[VideoClip]:
    if at_pauses:
        yield from reader.read_segments(cut, beat)
    else:
        yield reader.read(cut, beat)


class _Beat:
    """Counts frames, reports progress, and ends a video that has too many of them."""

    def __init__(self, connection: Connection, max_frames: int) -> None:
        self._connection, self._max_frames = connection, max_frames
        self.num_frames, self._last_time = 0, 0.0

    def __call__(self) -> None:
        self.num_frames += 1
        if self.num_frames > self._max_frames:
            raise UnreadableClip("has too many frames; choose a start and an end")
        if time.monotonic() - self._last_time >= BEAT_SECONDS:
            self._last_time = time.monotonic()
            self._connection.send(("progress", VideoProgress(self.num_frames)))
