"""METEOR, BLEURT and COMET, which need local data, against their original programs."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Ended, subprocess_command

from signllava_cli.evaluation.metrics.bleurt import Bleurt
from signllava_cli.evaluation.metrics.meteor import Meteor

COMET = shutil.which("comet-score")
WORDNET = Path("/usr/share/wordnet")  # Debian's package wordnet-base
TINY_BLEURT = Path(__file__).parent / "tiny_bleurt"
SCORED_PAIRS = json.loads((TINY_BLEURT / "scores.json").read_text())


def write_texts(folder: Path) -> list[object]:
    """Write hypotheses and references of the pairs; returns the options of `signllava eval`."""
    for option, key in (("hyp", "hypothesis"), ("ref", "reference")):
        (folder / option).write_text("\n".join(row[key] for row in SCORED_PAIRS) + "\n")
    return ["--hyp", folder / "hyp", "--ref", folder / "ref", "--resample", "clips", "--out", folder / "s.json"]


def test_bleurt_equals_bleurt_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    metric = Bleurt(TINY_BLEURT)
    scores = metric.score_sentences(
        [row["hypothesis"] for row in SCORED_PAIRS], [row["reference"] for row in SCORED_PAIRS]
    )
    assert scores == pytest.approx([row["score"] for row in SCORED_PAIRS], abs=1e-5)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 pair is longer, and was truncated" in printed


def test_an_unpublished_checkpoint_is_not_called_bleurt_20(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    process = signllava("eval", *write_texts(tmp_path), "--bleurt", TINY_BLEURT)
    assert process.code == 0, process.err
    assert "unlike every published BLEURT-20" in process.out
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert result["scores"]["bleurt"] == pytest.approx(
        sum(100 * row["score"] for row in SCORED_PAIRS) / len(SCORED_PAIRS), abs=1e-3
    )
    assert result["intervals"]["bleurt"]["low"] < result["scores"]["bleurt"] < result["intervals"]["bleurt"]["high"]
    assert result["signatures"]["Bleurt"].startswith("bleurt|checkpoint:none that is published|weights:")


def test_an_invalid_bleurt_checkpoint_is_refused(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    options = write_texts(tmp_path)
    folder = tmp_path / "bleurt"
    assert "lucadiliello/BLEURT-20" in signllava("eval", *options, "--bleurt", folder).err
    for corrupted, content, message in (
        ("spm.model", b"no", "is not a valid sentencepiece model"),
        ("config.json", b'{"model_type": "bert"}', "not that of a BLEURT-20 checkpoint"),
        (
            "config.json",
            json.dumps({**json.loads((TINY_BLEURT / "config.json").read_text()), "hidden_size": 8}).encode(),
            "fit",
        ),
        ("model.safetensors", b"no", "not a valid safetensors file"),
    ):
        shutil.copytree(TINY_BLEURT, folder, dirs_exist_ok=True)
        (folder / corrupted).write_bytes(content)
        process = signllava("eval", *options, "--bleurt", folder)
        assert (process.code, message in " ".join(process.err.split())) == (2, True), process.err
        assert "Traceback" not in process.err


@pytest.mark.skipif(COMET is None, reason="no comet-score on the PATH (pipx install unbabel-comet)")
def test_comet_equals_its_own_command(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    """The scores of `comet-score` for the same pairs with empty sources."""
    assert COMET is not None
    python = Path(COMET).resolve().parent / "python"
    subprocess.run([str(python), Path(__file__).parent / "tiny_comet.py", tmp_path], check=True, capture_output=True)
    checkpoint = tmp_path / "tiny-comet" / "checkpoints" / "model.ckpt"
    process = signllava("eval", *write_texts(tmp_path), "--comet", checkpoint)
    assert process.code == 0, process.err
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    (tmp_path / "src").write_text("\n" * len(SCORED_PAIRS))
    command: list[Any] = [
        COMET,
        "-s",
        tmp_path / "src",
        "-t",
        tmp_path / "hyp",
        "-r",
        tmp_path / "ref",
        "--model",
        checkpoint,
    ]
    expected = subprocess.run([*command, "--gpus", "0", "--only_system"], check=True, capture_output=True, text=True)
    assert result["scores"]["comet"] == pytest.approx(100 * float(expected.stdout.split()[-1]), abs=0.01)
    assert result["signatures"]["Comet"].endswith("source:empty")
    checkpoint.write_bytes(b"no")
    process = signllava("eval", *write_texts(tmp_path), "--comet", checkpoint)
    assert (process.code, "comet-score ended with" in process.err) == (2, True)


@pytest.mark.drill
def test_a_signal_also_stops_the_command_of_comet(tmp_path: Path) -> None:
    """A stand-in for `comet-score` that never ends, so that the test runs without COMET."""
    pid = tmp_path / "pid"
    (tmp_path / "comet-score").write_text(f"#!/bin/sh\necho $$ > {pid}.half\nmv {pid}.half {pid}\nexec sleep 600\n")
    (tmp_path / "comet-score").chmod(0o755)
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = [*write_texts(tmp_path), "--comet", tmp_path / "model.ckpt"]
    evaluation = subprocess_command("eval", *options, env=path)
    deadline = time.monotonic() + 120
    while not pid.exists():
        assert evaluation.poll() is None, evaluation.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command = psutil.Process(int(pid.read_text()))
    evaluation.terminate()
    evaluation.wait(timeout=60)
    is_running = command.is_running()
    if is_running:
        command.kill()
    output = evaluation.communicate()[0]
    assert (evaluation.returncode, is_running) == (75, False), output
    assert "stopped by SIGTERM" in output


def test_comet_without_its_command_says_how_to_install_it(
    signllava: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    process = signllava("eval", *write_texts(tmp_path), "--comet", tmp_path / "hyp")
    assert (process.code, "pipx install unbabel-comet" in " ".join(process.err.split())) == (2, True)


@pytest.mark.drill
@pytest.mark.skipif(
    not (WORDNET / "index.sense").is_file(),
    reason="no WordNet on this machine (Debian: apt install wordnet-base wordnet-sense-index)",
)
def test_meteor_equals_nltk_with_the_given_wordnet(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    """The pair and the score of the documentation of NLTK's meteor_score."""
    process = signllava("eval", *write_texts(tmp_path), "--meteor", tmp_path)
    assert (process.code, "has no corpora/wordnet" in " ".join(process.err.split())) == (2, True)
    shutil.copytree(WORDNET, tmp_path / "corpora" / "wordnet")
    parts = [
        "adj",
        "adj",
        "adv",
        *["noun"] * 26,
        *["verb"] * 15,
        "adj",
    ]  # the list of NLTK's copy, which Debian's lacks
    lines = (f"{number:02}\t{part}.{number}\t1\n" for number, part in enumerate(parts))
    (tmp_path / "corpora" / "wordnet" / "lexnames").write_text("".join(lines))
    hypothesis = "It is a guide to action which ensures that the military always obeys the commands of the party"
    reference = "It is a guide to action that ensures that the military will forever heed Party commands"
    result = Meteor(tmp_path).compute(predictions=[hypothesis], references=[reference])
    assert result["meteor"] == pytest.approx(69.44, abs=0.01)
    synonym, other = Meteor(tmp_path).score_sentences(["the car", "the cat"], ["the auto"] * 2)
    assert synonym > 2 * other
    process = signllava("eval", *write_texts(tmp_path), "--meteor", tmp_path)
    assert process.code == 0, process.err
    assert "|stem:porter|" in " ".join(process.out.split())
