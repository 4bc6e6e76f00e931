"""The demo, whole, through its command, on the tiny LLM."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

REAL_LLM_SECONDS, TINY_SECONDS = 15 * 60, 3 * 60  # alone on two cores; other tests run beside this one


def run_demo(llm: str, out: Path) -> tuple[dict[str, object], str, float]:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "signllava_cli", "demo", "--llm", llm, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return json.loads((out / "summary.json").read_text()), ended.stdout, time.monotonic() - began


def check_summary(summary: dict[str, object], llm: str) -> None:
    assert summary["llm"] == llm
    assert list(summary["stages"]) == ["pretrain", "finetune"]
    for stage in summary["stages"].values():
        checkpoint = Path(stage["checkpoint"])
        assert (checkpoint / "projector.safetensors").is_file()
        assert stage["checkpoint_bytes"] < 1.1 * 4 * stage["trained_parameters"] + 50_000
        assert list(stage["scores"]) == ["none", "gold", "predicted"]
        for scores in stage["scores"].values():
            assert set(scores) == {"bleu4", "chrf2", "context_bound_accuracy", "clips", "seconds"}


@pytest.mark.timeout(4 * TINY_SECONDS)
def test_the_demo_on_the_tiny_llm(tmp_path: Path) -> None:
    summary, output, seconds = run_demo("tiny", tmp_path / "demo")
    check_summary(summary, "tiny")
    assert seconds < 3 * TINY_SECONDS
    for command in ("prepare toy", "prepare llm tiny", "pretrain", "finetune", "generate", "eval"):
        assert output.count(f"$ signllava {command}") == (2 if command in ("generate", "eval") else 1)
    for stage in summary["stages"].values():
        scores = stage["scores"]
        assert scores["gold"]["context_bound_accuracy"] > scores["none"]["context_bound_accuracy"]
    again, _, _ = run_demo("tiny", tmp_path / "demo")  # everything is done: nothing changes
    assert again["stages"] == summary["stages"]


@pytest.mark.slow
@pytest.mark.timeout(2 * REAL_LLM_SECONDS)
def test_the_demo_on_smollm2_keeps_its_promises(tmp_path: Path) -> None:
    summary, _, seconds = run_demo("smollm2", tmp_path / "demo")
    check_summary(summary, "smollm2")
    assert seconds < REAL_LLM_SECONDS
    pretrained, finetuned = (summary["stages"][stage]["scores"] for stage in ("pretrain", "finetune"))
    assert pretrained["gold"]["bleu4"] >= 60
    assert finetuned["gold"]["bleu4"] >= pretrained["gold"]["bleu4"]
    for scores in (pretrained, finetuned):
        accuracy = {source: each["context_bound_accuracy"] for source, each in scores.items()}
        assert accuracy["gold"] >= accuracy["none"] + 20
        assert accuracy["predicted"] > accuracy["none"]
