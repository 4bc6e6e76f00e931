"""The demo, whole, through its command, on the tiny LLM."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import subprocess_command

REAL_LLM_SECONDS, TINY_SECONDS = 15 * 60, 3 * 60  # alone on two cores; other tests run beside this one


def run_demo(llm: str, out: Path) -> tuple[dict[str, Any], str, float]:
    start_time = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "signllava_cli", "demo", "--llm", llm, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return json.loads((out / "summary.json").read_text()), ended.stdout, time.monotonic() - start_time


def check_summary(summary: dict[str, Any], llm: str) -> None:
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


@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["SIGTERM to it", "Ctrl-C"]
)
def test_a_signal_stops_the_command_that_the_demo_runs_with_its_state_saved(
    tmp_path: Path, corpus: Path, tiny_llm: Path, number: signal.Signals, to_group: bool
) -> None:
    shutil.copytree(corpus, tmp_path / "data")
    shutil.copytree(tiny_llm, tmp_path / "llm" / "tiny")
    demo = subprocess_command("demo", "--llm", "tiny", "--out", tmp_path, start_new_session=True)
    run, deadline = tmp_path / "tiny" / "pretrain", time.monotonic() + 120
    try:
        while not (run / "metrics.jsonl").exists():
            assert demo.poll() is None, demo.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = psutil.Process(demo.pid).children()
        os.killpg(demo.pid, number) if to_group else demo.send_signal(number)
        demo.wait(timeout=60)
        is_left = children[0].is_running()
    finally:
        with contextlib.suppress(ProcessLookupError):  # nobody of the demo's own process group is left
            os.killpg(demo.pid, signal.SIGKILL)
    output = demo.communicate()[0]
    assert demo.returncode == 75, output
    assert len(children) == 1
    assert not is_left
    assert (run / "last").exists(), output
    assert "signllava demo` again" in output
    assert "Traceback" not in output


@pytest.mark.drill
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
