"""A long run with evaluation, dev BLEU, saving in the background and data workers: its memory stays flat.

SIGNLLAVA_SOAK_STEPS sets the length, as in docs/reliability.md.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import sets, subprocess_command
from process_usage import ProcessSampler, after_warm_up, growth, memory_slope, total_size

STEPS = int(os.environ.get("SIGNLLAVA_SOAK_STEPS", "2000"))
MAX_BYTES_PER_STEP = 8 * 1024  # a leak of one batch of features, or of one step's output, is more
MAX_MORE = 3  # handles and threads: a leak of one with each evaluation is more
SAVE_TOTAL_LIMIT = 2
MAX_SECONDS = max(1500, 2 * STEPS)


def read_step(metrics: Path) -> int:
    """The last step in metrics.jsonl; 0 before the first."""
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except ValueError:  # being written
            continue
    return 0


@pytest.mark.drill
@pytest.mark.timeout(MAX_SECONDS + 60)
@pytest.mark.reliability("Soak", "memory, handles, threads and disk of a long training stay flat")
def test_a_long_training_stays_flat(
    corpus: Path, tiny_llm: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = tmp_path / "run"
    settings = [
        *(f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.output_dir={run}", f"train.max_steps={STEPS}"),
        *("train.batch_size=2", "train.micro_batch_size=2", "data.num_workers=1", "tasks.paraphrases=0.5"),
        *("train.eval_steps=200", "train.metric_for_best_model=dev_bleu", "train.dev_clips=4"),
        *("train.save_steps=40", f"train.save_total_limit={SAVE_TOTAL_LIMIT}", "track.logging_steps=5"),
    ]
    process = subprocess_command("pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings))
    sampler = ProcessSampler(
        process.pid,
        lambda: read_step(run / "metrics.jsonl"),
        lambda: total_size(run, "step-*/**/*"),
        seconds=max(0.2, STEPS / 10_000),
    )
    try:
        output, _ = process.communicate(timeout=MAX_SECONDS)
    finally:
        process.kill()
    samples = [sample for sample in sampler.stop() if sample.work]
    assert process.returncode == 0, output
    rest = after_warm_up(samples)
    slope = memory_slope(samples)
    disk = [sample.disk for sample in rest]
    record_property("steps", STEPS)
    record_property("bytes per step", slope.value)
    record_property("bytes per step, margin", slope.margin)
    print(f"memory {slope.value:.0f} ± {slope.margin:.0f} bytes per step; disk at most {max(disk):,} bytes")
    assert slope.upper < MAX_BYTES_PER_STEP
    assert growth([sample.handles for sample in rest]) <= MAX_MORE
    assert growth([sample.threads for sample in rest]) <= MAX_MORE
    checkpoints = [path for path in run.iterdir() if path.name.startswith("step-") and not path.is_symlink()]
    assert len(checkpoints) <= SAVE_TOTAL_LIMIT + 1  # and the best
    # the best one, one that is being written, and one that is being removed
    assert max(disk) <= (SAVE_TOTAL_LIMIT + 3) * max(map(total_size, checkpoints))
