"""manifest.json of a run: with what each of its starts ran; a resume with other versions or hardware is named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets

from signllava_cli.recipe import LLM
from signllava_cli.training import machine, manifest

Command = Callable[..., Ended]
PRETRAIN = ("pretrain", "-r", "toy/tiny_pretrain")
ROOT = Path(__file__).parents[2]


def read_starts(run: Path) -> list[dict[str, Any]]:
    starts: list[dict[str, Any]] = json.loads((run / "manifest.json").read_text())["starts"]
    return starts


@pytest.mark.reliability("Reproducibility", "the manifest of a run has what each start ran with, and names changes")
def test_each_start_adds_an_entry_and_a_resume_names_what_differs(
    signllava: Command, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ended = signllava(*PRETRAIN, *sets([*settings, "train.stop_at_step=2"]))
    assert ended.code == 75, ended.err
    (start,) = read_starts(run)
    assert start["versions"].keys() >= {
        *("python", "signllava", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "deepspeed"),
        *("numpy", "h5py"),
    }
    assert start["versions"]["torch"] == torch.__version__
    config = json.loads((run / "step-000002" / "config.json").read_text())
    assert start["data"]["train"]["fingerprint"] == config["data"]
    assert start["data"]["train"]["clips"] > start["data"]["dev"]["clips"] > 0
    assert "model.safetensors" in start["llm"]["files"]
    assert start["recipe"]["train"]["max_steps"] == 6
    assert (start["seed"], start["stage"], start["resumed_at_step"]) == (0, "pretrain", None)
    assert start["command"][:4] == ["signllava", *PRETRAIN]
    assert start["launch"] == {"profile": None, "distributed_type": "NO"}
    assert (start["hardware"]["ranks"], start["hardware"]["hosts"]) == (1, 1)
    assert start["environment"]["OMP_NUM_THREADS"] == "1"
    assert "a-secret-value" not in (run / "manifest.json").read_text()
    if (ROOT / ".git").exists():
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert start["toolkit"]["commit"] == commit.stdout.strip()
    assert "resumed with other" not in (ended := signllava(*PRETRAIN, *sets(settings))).out
    assert ended.code == 0, ended.err
    assert [each["resumed_at_step"] for each in read_starts(run)] == [None, 2]


@pytest.mark.reliability("Reproducibility", "the manifest of a run has what each start ran with, and names changes")
def test_a_resume_with_other_versions_or_hardware_is_one_line(
    signllava: Command, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert signllava(*PRETRAIN, *sets([*settings, "train.stop_at_step=2"])).code == 75
    package_versions = machine.package_versions()
    monkeypatch.setattr(manifest, "package_versions", lambda: {**package_versions, "torch": "9.9.9"})
    monkeypatch.setattr(machine, "_cpu_model", lambda: "Another CPU")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    ended = signllava(*PRETRAIN, *sets([*settings, "train.stop_at_step=4"]))
    (line,) = (line for line in ended.out.splitlines() if "resumed with other versions" in line)
    assert f"versions.torch {package_versions['torch']} -> 9.9.9" in line
    assert "environment.OMP_NUM_THREADS 1 -> 2" in line
    assert "Another CPU" in line
    (run / "manifest.json").write_text('{"format": 1, "st')
    ended = signllava(*PRETRAIN, *sets(settings))
    assert ended.code == 0, ended.err
    assert "manifest.json is damaged" in ended.out
    assert (run / "manifest.json.damaged").is_file()
    assert len(read_starts(run)) == 1


def test_a_toolkit_outside_of_a_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "package" / "training" / "machine.py"))
    assert machine.toolkit_commit() is None


def test_a_changed_file_of_the_package_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    file = repository / "package" / "training" / "machine.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(machine, "__file__", str(file))
    clean = machine.toolkit_commit()
    assert clean is not None
    assert clean["dirty"] is False
    (repository / "my_recipe.yaml").touch()
    assert machine.toolkit_commit() == clean
    file.write_text("changed")
    assert machine.toolkit_commit() == {**clean, "dirty": True}


def test_a_dead_link_in_the_folder_of_the_llm_is_no_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").symlink_to("blob-that-was-removed")
    assert list(manifest._describe_llm(LLM(path=str(tmp_path)))["files"]) == ["config.json"]


@pytest.mark.drill
@pytest.mark.reliability("Reproducibility", "the manifest of a run has what each start ran with, and names changes")
def test_the_manifest_counts_the_ranks_of_a_launch(settings: list[str], tmp_path: Path) -> None:
    more = ["train.stop_at_step=2", "train.micro_batch_size=2"]
    command = [sys.executable, "-m", "signllava_cli", *PRETRAIN, *sets([*settings, *more]), "--launch", "multi_cpu"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, env=dict(os.environ))
    assert ended.returncode == 75, ended.stdout + ended.stderr
    (start,) = read_starts(tmp_path / "run")
    assert (start["hardware"]["ranks"], start["hardware"]["hosts"]) == (2, 1)
    assert start["launch"] == {"profile": "multi_cpu", "distributed_type": "MULTI_CPU"}
