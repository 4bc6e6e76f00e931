"""The demo, whole, through its command, on the tiny LLM."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Ended, subprocess_command
from doc_pages import ROOT, shell_block, signllava_commands
from real_clips import CLIPS, clip_file, model_file, needs_samples

from signllava_cli import demo, processes
from signllava_cli.cli.main import run as run_command_line
from signllava_cli.data.annotations import annotation_file
from signllava_cli.errors import UserError
from signllava_cli.recipe import read_recipe

FASTER = {  # what brings the commands of the demo to a few seconds
    "pretrain": ("--set", "train.max_steps=4"),
    "finetune": ("--set", "train.max_steps=2"),
    "generate": ("--max-new-tokens", "4", "--beams", "1"),
}


def run_demo(llm: str, out: Path) -> tuple[dict[str, Any], str]:
    ended = subprocess.run(
        [sys.executable, "-m", "signllava_cli", "demo", "--llm", llm, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return json.loads((out / "summary.json").read_text()), ended.stdout


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


@pytest.mark.parametrize("name", ["my demo #1", "a: b"])
def test_the_name_of_the_folder_is_not_read_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / name
    recipes = []

    def stop_at_training(words: list[str], _: str) -> None:
        if words[0] == "pretrain":
            recipes.append(read_recipe(words[2], [word for word in words if "=" in word]))
            raise UserError("stopped")

    monkeypatch.setattr(demo, "run_signllava", stop_at_training)
    with pytest.raises(UserError, match="stopped"):
        demo.run_demo("tiny", out)
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "table.csv").write_text("uid,translation\n1,one\n")
    annotation = annotation_file(out / "video" / "data", "train")
    annotation.parent.mkdir(parents=True)
    annotation.touch()
    with pytest.raises(UserError, match="stopped"):
        demo.run_video_demo(videos, "tiny", out, None)
    for recipe, folder, run in zip(recipes, (out, out / "video"), ("tiny/pretrain", "tiny"), strict=True):
        paths = recipe.llm.path, recipe.data.root, recipe.run.output_dir
        assert paths == (str(folder / "llm/tiny"), str(folder / "data"), str(folder / run))


def check_commands(output: str) -> None:
    for command in ("prepare toy", "prepare llm tiny", "pretrain", "finetune", "generate", "eval"):
        assert output.count(f"$ signllava {command}") == (2 if command in ("generate", "eval") else 1)


@pytest.mark.drill
def test_the_demo_runs_every_command_and_again_changes_nothing(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process and with few steps; the whole of it, in its own processes, is the drill below."""

    def run_here(command: list[str]) -> subprocess.CompletedProcess[str]:
        words = command[command.index("signllava_cli") + 1 :]
        if words[:2] == ["prepare", "llm"]:
            shutil.copytree(tiny_llm, words[words.index("--out") + 1])
            return subprocess.CompletedProcess(command, 0)
        monkeypatch.setattr(sys, "argv", ["signllava", *words, *FASTER.get(words[0], ())])
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0))

    monkeypatch.setattr(processes, "run_command", run_here)
    summaries = []
    for _ in range(2):
        demo.run_demo("tiny", tmp_path)
        summaries.append(json.loads((tmp_path / "summary.json").read_text()))
        output = capsys.readouterr().out
        if len(summaries) == 1:
            check_commands(output)
    check_summary(summaries[0], "tiny")
    assert summaries[1]["stages"] == summaries[0]["stages"]


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_the_demo_on_the_tiny_llm(tmp_path: Path) -> None:
    summary, output = run_demo("tiny", tmp_path / "demo")
    check_summary(summary, "tiny")
    check_commands(output)
    for stage in summary["stages"].values():
        scores = stage["scores"]
        assert scores["gold"]["context_bound_accuracy"] > scores["none"]["context_bound_accuracy"]
    again, _ = run_demo("tiny", tmp_path / "demo")  # everything is done: nothing changes
    assert again["stages"] == summary["stages"]


@pytest.mark.drill
@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["SIGTERM to it", "Ctrl-C"]
)
def test_a_signal_stops_the_command_that_the_demo_runs_with_its_state_saved(
    tmp_path: Path, corpus: Path, tiny_llm: Path, number: signal.Signals, to_group: bool
) -> None:
    shutil.copytree(corpus, tmp_path / "data")
    shutil.copytree(tiny_llm, tmp_path / "llm" / "tiny")
    process = subprocess_command("demo", "--llm", "tiny", "--out", tmp_path, start_new_session=True)
    run, deadline = tmp_path / "tiny" / "pretrain", time.monotonic() + 120
    try:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = psutil.Process(process.pid).children()
        os.killpg(process.pid, number) if to_group else process.send_signal(number)
        process.wait(timeout=60)
        is_left = children[0].is_running()
    finally:
        with contextlib.suppress(ProcessLookupError):  # nobody of the demo's own process group is left
            os.killpg(process.pid, signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 75, output
    assert len(children) == 1
    assert not is_left
    assert (run / "last").exists(), output
    assert "signllava demo` again" in output
    assert "Traceback" not in output


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_the_demo_on_smollm2_keeps_its_promises(tmp_path: Path) -> None:
    summary, _ = run_demo("smollm2", tmp_path / "demo")
    check_summary(summary, "smollm2")
    pretrained, finetuned = (summary["stages"][stage]["scores"] for stage in ("pretrain", "finetune"))
    assert pretrained["gold"]["bleu4"] >= 60
    assert finetuned["gold"]["bleu4"] >= pretrained["gold"]["bleu4"]
    for scores in (pretrained, finetuned):
        accuracy = {source: each["context_bound_accuracy"] for source, each in scores.items()}
        assert accuracy["gold"] >= accuracy["none"] + 20
        assert accuracy["predicted"] > accuracy["none"]


def write_video_folder(folder: Path) -> Path:
    """The three real clips with sentences."""
    folder.mkdir()
    sentences = ("Hello and welcome.", "Today I show you a garden.", "We plant the seeds in small pots.")
    for name in CLIPS:
        shutil.copy(clip_file(name), folder)
    rows = [f"{name},{sentence}\n" for name, sentence in zip(CLIPS, sentences, strict=True)]
    (folder / "clips.csv").write_text("uid,translation\n" + "".join(rows))
    return folder


@needs_samples
@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_the_demo_on_videos_learns_their_sentences(tmp_path: Path) -> None:
    write_video_folder(tmp_path / "clips")
    shutil.copy(model_file(), tmp_path)
    [words] = signllava_commands(shell_block("docs/video.md", "demo --video"))
    for _ in range(2):  # the second time all is done
        process = subprocess_command(
            *words, "--out", "demo", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        output = process.communicate()[0]
        assert process.returncode == 0, output
        for command in ("prepare csv", "prepare extract", "prepare llm tiny", "pretrain", "generate", "eval"):
            is_first = (tmp_path / "demo" / "first").exists()
            assert f"$ signllava {command}" in output or (is_first and command in ("prepare csv", "prepare llm tiny"))
        (tmp_path / "demo" / "first").touch()
    summary = json.loads((tmp_path / "demo" / "video" / "summary.json").read_text())
    assert [reference == hypothesis for _, reference, hypothesis in summary["clips"]] == [True] * 3
    assert summary["scores"]["bleu4"] == pytest.approx(100)
    assert "these clips were trained on" in output
    assert "signllava serve --checkpoint" in output


def test_the_demo_on_videos_wants_one_table(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    ended = signllava("demo", "--video", tmp_path, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "expected a folder of videos with one table" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
