"""Measures a process and its children from outside, and how their memory grows with the work that they do."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

WARM_UP = 0.4  # of the work: libraries allocate, and caches fill
NUM_WINDOWS = 20  # after the warm-up; the median of each is a point of the regression
T_QUANTILE = 2.101  # 97.5 % of Student's t with NUM_WINDOWS - 2 degrees of freedom


@dataclass(frozen=True)
class Sample:
    """`work`: steps or requests done so far. The other numbers are sums over the processes."""

    work: float
    rss: int
    handles: int
    threads: int
    disk: int = 0


@dataclass(frozen=True)
class Slope:
    """A slope of a least-squares line, and half the width of its 95 % confidence interval."""

    value: float
    margin: float

    @property
    def upper(self) -> float:
        """The upper end of the interval."""
        return self.value + self.margin


class ProcessSampler:
    """Samples the process `pid` and all its children in a thread, until `stop`.

    Args:
        work: how much work is done, as a number that grows.
        disk: the bytes that the process has written, if they are measured.
        seconds: between two samples.
    """

    def __init__(
        self, pid: int, work: Callable[[], float], disk: Callable[[], int] = int, seconds: float = 0.2
    ) -> None:
        self.samples: list[Sample] = []
        self._process, self._work, self._disk, self._seconds = psutil.Process(pid), work, disk, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[Sample]:
        """End the sampling; the samples."""
        self._end.set()
        self._thread.join()
        return self.samples

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self.samples.append(self._sample())
            except psutil.NoSuchProcess:  # a worker has just ended, or the process itself
                continue

    def _sample(self) -> Sample:
        processes = [self._process, *self._process.children(recursive=True)]
        return Sample(
            self._work(),
            sum(process.memory_info().rss for process in processes),
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
            self._disk(),
        )


def total_size(folder: Path, pattern: str = "**/*") -> int:
    """The bytes of the files of `folder` that match, while other processes write and remove files."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for file in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size if file.is_file() and not file.is_symlink() else 0
    return total


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """The samples after the first part of the work and before its last unit, after which the process ends."""
    end = samples[-1].work
    return [sample for sample in samples if WARM_UP * end <= sample.work < end]


def memory_slope(samples: Sequence[Sample]) -> Slope:
    """Bytes of RSS per unit of work: a least-squares line through the medians of windows after the warm-up.

    Medians, because processes that live for the length of an evaluation are no growth.
    """
    rest = after_warm_up(samples)
    assert len(rest) >= 2 * NUM_WINDOWS, f"only {len(rest)} samples: the work was too short to be measured"
    windows = np.array_split(np.array([(sample.work, sample.rss) for sample in rest]), NUM_WINDOWS)
    work, rss = np.array([np.median(window, axis=0) for window in windows]).T
    spread = ((work - work.mean()) ** 2).sum()
    slope = ((work - work.mean()) * (rss - rss.mean())).sum() / spread
    residuals = rss - rss.mean() - slope * (work - work.mean())
    error = np.sqrt((residuals**2).sum() / (NUM_WINDOWS - 2) / spread)
    return Slope(float(slope), float(T_QUANTILE * error))


def growth(values: Sequence[int]) -> float:
    """By how much the median of the last third is above that of the first third; 0 if it is not.

    Medians, because what is open for a moment is seen in some samples alone.
    """
    third = max(1, len(values) // 3)
    return max(0, median(values[-third:]) - median(values[:third]))
