"""Extracts recordings in worker processes, and survives what videos do to them.

A decoder that hangs, or that crashes on a damaged file, ends its worker and costs one clip: the worker is replaced,
and its recording is extracted without that clip, which is named. (`concurrent.futures` would end all workers.)
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any

from signllava_cli.console import progress
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.errors import RunStopped, UserError, format_count
from signllava_cli.preemption import StopRequest
from signllava_cli.prepare.extract.clip_extractor import ClipExtractor, ClipVideo, ExtractedClip, ExtractorSettings
from signllava_cli.prepare.extract.recording_files import ExtractPaths, read_arrays, write_recording
from signllava_cli.prepare.extract.video_cuts import VideoCut
from signllava_cli.processes import POLL_SECONDS, StopWorker, block_signals, init_worker

CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


@dataclass
class RecordingJob:
    """A recording to extract: clip -> its cut. `skipped`: clips that were skipped already, with the reason."""

    recording: str
    cuts: Mapping[str, VideoCut]
    fingerprint: str
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolSettings:
    """How recordings are extracted. `stall_seconds`: a clip without a new frame for so long is skipped.

    `arrays`: where the boxes of the landmarks are, for extractors that need them.
    """

    extractor: ExtractorSettings
    paths: ExtractPaths
    arrays: ExtractPaths | None
    workers: int
    stall_seconds: float


def extract_recordings(jobs: Sequence[RecordingJob], settings: PoolSettings) -> None:
    """Extract `jobs`, and write the files of each recording when it is complete.

    Raises:
        UserError: the model cannot be loaded, a file cannot be written, or a worker was killed.
        RunStopped: a signal arrived; complete recordings are kept.
    """
    label = f"extracting {settings.paths.stream.stream}"
    with StopRequest().handle_signals() as request, progress(label, sum(len(job.cuts) for job in jobs)) as bar:
        pool = _Pool(jobs, settings)
        start_time = time.monotonic()
        try:
            while pool.is_busy and not request:
                pool.step()
                if num_new := pool.num_clips - bar.done:
                    rate = sum(pool.num_frames) / (time.monotonic() - start_time)
                    bar.advance(num_new, f"{rate:.1f} frames/s")
        finally:
            pool.stop()
    if num_left := pool.num_unfinished:
        count = format_count(num_left, "recording is", "recordings are")
        raise RunStopped(f"stopped by {request.reason}, {count} not extracted yet; run the same command again.")


@dataclass
class _Worker:
    """A worker process, from the parent's side. `index`: its place in the arrays shared with the parent."""

    index: int
    process: Any
    connection: Connection
    job: RecordingJob | None = None
    clip: str | None = None  # that it is extracting


class _Pool:
    """The worker processes, the jobs that wait, and what the workers report."""

    def __init__(self, jobs: Sequence[RecordingJob], settings: PoolSettings) -> None:
        self._settings, self._waiting = settings, deque(jobs)
        self._context = multiprocessing.get_context("spawn")  # processes.py says why not fork
        count = min(settings.workers, len(jobs))
        self.num_frames, self._beats = RawArray("q", count), RawArray("d", count)
        self._stop = RawValue("b", 0)
        self.num_clips = 0
        self._workers = {index: self._start(index) for index in range(count)}

    @property
    def is_busy(self) -> bool:
        """Whether a recording waits or is extracted."""
        return bool(self._waiting) or any(worker.job for worker in self._workers.values())

    @property
    def num_unfinished(self) -> int:
        """The recordings that are not complete."""
        return len(self._waiting) + sum(worker.job is not None for worker in self._workers.values())

    def _start(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (os.getpid(), theirs, self._settings, index, self.num_frames, self._beats, self._stop)
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        with block_signals():
            process.start()
        theirs.close()
        return _Worker(index, process, ours)

    def step(self) -> None:
        """Handle what workers report within some milliseconds, then replace those that crashed or hang."""
        ready = wait([worker.connection for worker in self._workers.values()], POLL_SECONDS)
        for worker in list(self._workers.values()):
            if worker.connection in ready:
                self._receive(worker)
            elif worker.clip is not None and self._seconds_since_beat(worker) > self._settings.stall_seconds:
                worker.process.kill()
                seconds = f"{self._settings.stall_seconds:g} s"
                self._replace(worker, f"took more than {seconds} for a frame, and was given up")

    def _seconds_since_beat(self, worker: _Worker) -> float:
        return time.monotonic() - self._beats[worker.index]

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):  # the process has ended
            worker.process.join()
            self._handle_crash(worker)
            return
        match kind:
            case "ready":
                self.num_clips += len(worker.job.cuts) if worker.job else 0
                worker.job, worker.clip = self._waiting.popleft() if self._waiting else None, None
                worker.connection.send(worker.job)
                if worker.job is None:  # it ends now
                    del self._workers[worker.index]
            case "clip":
                worker.clip = content
            case "error":
                raise UserError(content)
            case _:
                raise RuntimeError(f"a worker failed:\n{content}")

    def _handle_crash(self, worker: _Worker) -> None:
        code = worker.process.exitcode
        if worker.clip is None or -code not in CRASHES:
            cause = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise UserError(
                f"A worker process ended {cause}, perhaps because memory ran out; run the command again with fewer "
                "--workers. Complete recordings are kept."
            )
        self._replace(worker, f"crashed the process that read it ({signal.Signals(-code).name})")

    def _replace(self, worker: _Worker, reason: str) -> None:
        """Start another worker, and put the recording back, without the clip that ended the worker."""
        assert worker.job is not None
        assert worker.clip is not None
        worker.job.skipped[worker.clip] = reason
        self._waiting.appendleft(worker.job)
        worker.process.join()
        worker.connection.close()
        self._workers[worker.index] = self._start(worker.index)

    def stop(self) -> None:
        """Stop all workers; recordings that are not complete are dropped."""
        self._stop.value = 1
        for worker in self._workers.values():
            worker.connection.close()
        deadline = time.monotonic() + 5
        for worker in self._workers.values():
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():  # it hangs, or loads a model
                worker.process.kill()
                worker.process.join()


# ---- in a worker ----


def _work(
    parent: int, connection: Connection, settings: PoolSettings, index: int, num_frames: Any, beats: Any, stop: Any
) -> None:
    """Extract one recording after the other, as the parent sends them."""
    init_worker(parent)
    _silence_stderr()

    def after_frame() -> None:
        num_frames[index] += 1
        beats[index] = time.monotonic()
        if stop.value:
            raise StopWorker

    def before_clip(clip: str | None) -> None:
        beats[index] = time.monotonic()
        connection.send(("clip", clip))

    try:
        extractor = settings.extractor.open()
        while True:
            connection.send(("ready", None))
            job = connection.recv()
            if job is None:
                return
            _extract_recording(job, extractor, settings, before_clip, after_frame)
    except (StopWorker, EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        connection.send(("error", str(error)))
    except BaseException:
        connection.send(("bug", traceback.format_exc()))


def _silence_stderr() -> None:
    """Drop what FFmpeg and MediaPipe log there; our own errors are sent to the parent."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _extract_recording(
    job: RecordingJob, extractor: ClipExtractor, settings: PoolSettings, before_clip: Any, after_frame: Any
) -> None:
    stored = {} if settings.arrays is None else read_arrays(settings.arrays.arrays(job.recording))
    clips: dict[str, ExtractedClip] = {}
    skipped = dict(job.skipped)
    for clip, cut in job.cuts.items():
        if clip in skipped:
            continue
        arrays = stored.get(clip, {})
        if settings.arrays is not None and not arrays:
            skipped[clip] = "stream pose has skipped it"
            continue
        before_clip(clip)
        video = ClipVideo(job.recording, clip, cut, arrays.get("boxes"), arrays.get("times"), after_frame)
        try:
            clips[clip] = extractor.extract(video)
        except UnreadableClip as error:
            skipped[clip] = str(error)
    before_clip(None)
    in_order = {clip: skipped[clip] for clip in job.cuts if clip in skipped}
    write_recording(settings.paths, job.recording, job.fingerprint, clips, in_order | skipped)
