"""METEOR, BLEURT and COMET, which need local data, against the programs they come from."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Ended, subprocess_command

from signllava_cli.evaluation.metrics.bleurt import Bleurt
from signllava_cli.evaluation.metrics.meteor import Meteor

COMET = shutil.which("comet-score")
WORDNET = Path("/usr/share/wordnet")  # of Debian's package wordnet-base
TINY = Path(__file__).parent / "tiny_bleurt"
SCORED = json.loads((TINY / "scores.json").read_text())


def pair_of_files(folder: Path) -> list[object]:
    for option, key in (("hyp", "hypothesis"), ("ref", "reference")):
        (folder / option).write_text("\n".join(row[key] for row in SCORED) + "\n")
    return ["--hyp", folder / "hyp", "--ref", folder / "ref", "--resample", "clips", "--out", folder / "s.json"]


def test_bleurt_is_that_of_bleurt_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    metric = Bleurt(TINY)
    found = metric.of_clips([row["hypothesis"] for row in SCORED], [row["reference"] for row in SCORED])
    assert found == pytest.approx([row["score"] for row in SCORED], abs=1e-5)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 pairs are longer, and were cut" in printed


def test_a_checkpoint_that_is_not_published_is_not_called_bleurt_20(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = signllava("eval", *pair_of_files(tmp_path), "--bleurt", TINY)
    assert ended.code == 0, ended.err
    assert "as no published BLEURT-20 does" in ended.out
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert result["scores"]["bleurt"] == pytest.approx(
        sum(100 * row["score"] for row in SCORED) / len(SCORED), abs=1e-3
    )
    assert result["intervals"]["bleurt"]["low"] < result["scores"]["bleurt"] < result["intervals"]["bleurt"]["high"]
    assert result["signatures"]["Bleurt"].startswith("bleurt|checkpoint:none that is published|weights:")


def test_what_is_no_bleurt_checkpoint_is_refused(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    options = pair_of_files(tmp_path)
    folder = tmp_path / "bleurt"
    assert "lucadiliello/BLEURT-20" in signllava("eval", *options, "--bleurt", folder).err
    for spoilt, content, said in (
        ("spm.model", b"no", "is no sentencepiece model"),
        ("config.json", b'{"model_type": "bert"}', "none of the BLEURT-20 family's"),
        (
            "config.json",
            json.dumps({**json.loads((TINY / "config.json").read_text()), "hidden_size": 8}).encode(),
            "fit",
        ),
        ("model.safetensors", b"no", "not a valid safetensors file"),
    ):
        shutil.copytree(TINY, folder, dirs_exist_ok=True)
        (folder / spoilt).write_bytes(content)
        ended = signllava("eval", *options, "--bleurt", folder)
        assert (ended.code, said in " ".join(ended.err.split())) == (2, True), ended.err
        assert "Traceback" not in ended.err


@pytest.mark.skipif(COMET is None, reason="no comet-score on the PATH (pipx install unbabel-comet)")
def test_comet_is_that_of_its_command(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    """Its own scores, of the same pairs with empty sources."""
    assert COMET is not None
    python = Path(COMET).resolve().parent / "python"
    subprocess.run([python, Path(__file__).parent / "tiny_comet.py", tmp_path], check=True, capture_output=True)
    checkpoint = tmp_path / "tiny-comet" / "checkpoints" / "model.ckpt"
    ended = signllava("eval", *pair_of_files(tmp_path), "--comet", checkpoint)
    assert ended.code == 0, ended.err
    (result,) = json.loads((tmp_path / "s.json").read_text())["results"]
    (tmp_path / "src").write_text("\n" * len(SCORED))
    command = [COMET, "-s", tmp_path / "src", "-t", tmp_path / "hyp", "-r", tmp_path / "ref", "--model", checkpoint]
    theirs = subprocess.run([*command, "--gpus", "0", "--only_system"], check=True, capture_output=True, text=True)
    assert result["scores"]["comet"] == pytest.approx(100 * float(theirs.stdout.split()[-1]), abs=0.01)
    assert result["signatures"]["Comet"].endswith("source:empty")
    checkpoint.write_bytes(b"no")
    ended = signllava("eval", *pair_of_files(tmp_path), "--comet", checkpoint)
    assert (ended.code, "comet-score ended with" in ended.err) == (2, True)


def test_a_signal_goes_on_to_the_command_of_comet(tmp_path: Path) -> None:
    """A command that runs for ever, since one without the package can still be left behind."""
    pid = tmp_path / "pid"
    (tmp_path / "comet-score").write_text(f"#!/bin/sh\necho $$ > {pid}.half\nmv {pid}.half {pid}\nexec sleep 600\n")
    (tmp_path / "comet-score").chmod(0o755)
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = [*pair_of_files(tmp_path), "--comet", tmp_path / "model.ckpt"]
    evaluation = subprocess_command("eval", *options, env=path)
    deadline = time.monotonic() + 120
    while not pid.exists():
        assert evaluation.poll() is None, evaluation.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command = psutil.Process(int(pid.read_text()))
    evaluation.terminate()
    evaluation.wait(timeout=60)
    is_left = command.is_running()
    if is_left:
        command.kill()
    output = evaluation.communicate()[0]
    assert (evaluation.returncode, is_left) == (75, False), output
    assert "stopped by SIGTERM" in output


def test_comet_without_its_command_says_how_to_get_it(
    signllava: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = signllava("eval", *pair_of_files(tmp_path), "--comet", tmp_path / "hyp")
    assert (ended.code, "pipx install unbabel-comet" in " ".join(ended.err.split())) == (2, True)


@pytest.mark.skipif(
    not (WORDNET / "index.sense").is_file(),
    reason="no WordNet on this machine (Debian: apt install wordnet-base wordnet-sense-index)",
)
def test_meteor_is_nltks_with_the_wordnet_that_is_named(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    """The pair and the score of the documentation of NLTK's meteor_score."""
    ended = signllava("eval", *pair_of_files(tmp_path), "--meteor", tmp_path)
    assert (ended.code, "has no corpora/wordnet" in " ".join(ended.err.split())) == (2, True)
    shutil.copytree(WORDNET, tmp_path / "corpora" / "wordnet")
    parts = ["adj", "adj", "adv", *["noun"] * 26, *["verb"] * 15, "adj"]  # of NLTK's copy; Debian leaves the list out
    lines = (f"{number:02}\t{part}.{number}\t1\n" for number, part in enumerate(parts))
    (tmp_path / "corpora" / "wordnet" / "lexnames").write_text("".join(lines))
    said = "It is a guide to action which ensures that the military always obeys the commands of the party"
    meant = "It is a guide to action that ensures that the military will forever heed Party commands"
    result = Meteor(tmp_path).compute(predictions=[said], references=[meant])
    assert result["meteor"] == pytest.approx(69.44, abs=0.01)
    synonym, other = Meteor(tmp_path).of_clips(["the car", "the cat"], ["the auto"] * 2)
    assert synonym > 2 * other
    ended = signllava("eval", *pair_of_files(tmp_path), "--meteor", tmp_path)
    assert ended.code == 0, ended.err
    assert "|stem:porter|" in " ".join(ended.out.split())
