"""The measurement of the soak tests notices a leak, and calls a flat process flat."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from process_usage import ProcessSampler, Sample, growth, memory_slope

KIBIBYTE = 1024
STEPS, LEAK = 1500, 20 * KIBIBYTE


def noisy_samples(bytes_per_step: float) -> list[Sample]:
    """A process that fills a cache first, then varies by some MiB, with an evaluation every 100 steps."""
    rng = np.random.default_rng(0)
    steps = np.linspace(0, STEPS, 600)
    rss = 500 * 2**20 * (1 - np.exp(-steps / 100)) + bytes_per_step * steps + rng.normal(0, 2 * 2**20, len(steps))
    rss += np.where(steps % 100 < 10, 200 * 2**20, 0)
    return [Sample(step, int(value), 10, 10) for step, value in zip(steps, rss, strict=True)]


def test_a_leak_is_found_in_noise() -> None:
    flat, leaking = memory_slope(noisy_samples(0)), memory_slope(noisy_samples(LEAK))
    assert abs(flat.value) < flat.margin + 0.2 * LEAK
    assert flat.upper < 0.5 * LEAK
    assert 0.8 * LEAK < leaking.value < 1.2 * LEAK


def test_growth_ignores_what_comes_and_goes() -> None:
    assert growth([5, 9, 5] * 30) == 0
    assert growth([5, 9, 5] * 30 + [12]) == 0
    assert growth([5, 9, 5] * 20 + [8, 8, 12] * 10) == 3


SCRIPT = """
import sys, time
kept = []
for step in range(1, 151):
    kept += [bytearray(200_000)] if sys.argv[2] == "memory" else []
    kept += [open(sys.argv[1])] if sys.argv[2] == "handles" else []
    open(sys.argv[1], "w").write(str(step))
    time.sleep(0.02)
"""


@pytest.mark.drill
@pytest.mark.parametrize("leak", ["none", "memory", "handles"])
def test_memory_and_handles_of_a_process_are_measured_from_outside(tmp_path: Path, leak: str) -> None:
    file = tmp_path / "step"
    file.write_text("0")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(file), leak])
    sampler = ProcessSampler(process.pid, lambda: float(file.read_text() or 0), seconds=0.01)
    process.wait(timeout=120)
    samples = [sample for sample in sampler.stop() if sample.work]
    slope = memory_slope(samples)
    assert (slope.value > 150_000) == (leak == "memory")
    assert (growth([sample.handles for sample in samples]) > 25) == (leak == "handles")
