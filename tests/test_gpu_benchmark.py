"""`benchmarks/gpu.py` on a tiny LLM without a GPU, so that it runs when a GPU is at hand."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SKIPPED = {"sdpa", "commands", "ranks"}  # need a GPU, or take minutes


def test_every_stage_measures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    words = ["--tiny", "--device", "cpu", "--in-process", "--seconds", "300", "--out", str(out)]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert not [record for record in records if "error" in record]
    stages = ["limits", "setup", "decode-bf16", "train-bf16", "train-nf4", "decode-nf4", "parity"]
    assert [stage for stage in dict.fromkeys(record["stage"] for record in records) if stage not in SKIPPED] == stages
    assert {record["stage"] for record in records if "skipped" in record} == SKIPPED
    speeds = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    assert len(speeds) == 4
    assert all(speed > 0 for speed in speeds)
    steps = [record for record in records if "step_ms" in record]
    assert [(record["decoder"], record["steps"]) for record in steps] == [("SharedPrefixDecoder", 2)] * 2
    assert all(0 < record["bound_ms"] < record["step_ms"] for record in steps)
