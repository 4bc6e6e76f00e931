"""`checkpoint push` and `checkpoint pull`: a checkpoint goes to the hub and comes back with equal bytes."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, interrupted, subprocess_command
from hub_stand_in import TOKEN, Hub

from signllava_cli.files import LOCK_FILE

pytest_plugins = ["hub_stand_in"]
Command = Callable[..., Ended]
REPO, NAME = "lab/signs", "models/lab/signs"
FINETUNED = {
    "projector.safetensors": b"p" * 5000,
    "adapter/adapter_model.safetensors": b"a" * 7000,
    "adapter/adapter_config.json": b"{}",
    "recipe.yaml": b"{}",
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b"{}",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def error_line(ended: Ended) -> str:
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.out + ended.err
    assert TOKEN not in ended.err + ended.out
    return ended.err


@pytest.mark.drill
def test_a_checkpoint_comes_back_with_equal_bytes(hub: Hub, signllava: Command, run: Path, tmp_path: Path) -> None:
    push = signllava("checkpoint", "push", run, REPO, "--llm", "lab/llm", "--private", "--json")
    assert push.code == 0, push.err
    assert json.loads(push.out) == {"repo_id": REPO, "url": f"{hub.url}/{REPO}"}
    assert hub.repositories[NAME].private
    stored = hub.repositories[NAME].files
    pull = signllava("checkpoint", "pull", REPO, "--out", tmp_path / "out")
    assert pull.code == 0, pull.err
    assert contents(tmp_path / "out") == {name: stored[name] for name in stored if name != ".gitattributes"}
    ended = signllava("checkpoint", "inspect", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    inspected = json.loads(ended.out)
    assert inspected["config"]["llm"]["path"] == "lab/llm"


def test_only_the_files_of_a_checkpoint_are_downloaded(hub: Hub, signllava: Command, tmp_path: Path) -> None:
    others = {"../evil.py": b"x", "adapter/run.py": b"x", "resume/state.bin": b"x", ".gitattributes": b"x"}
    hub.put(NAME, FINETUNED | others)
    out = tmp_path / "deep" / "out"
    pull = signllava("checkpoint", "pull", REPO, "--out", out)
    assert pull.code == 0, pull.err
    assert contents(out) == FINETUNED
    assert "license mit" in pull.out
    assert (
        "not downloaded: 3 other files of the repository (../evil.py, adapter/run.py, resume/state.bin)" in pull.out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    again = json.loads(signllava("checkpoint", "pull", REPO, "--out", out, "--json").out)
    assert (again["downloaded"], len(again["present"])) == ([], len(FINETUNED))
    (out / "recipe.yaml").write_text("{a: 1}")
    assert "1 file exists with another content" in error_line(signllava("checkpoint", "pull", REPO, "--out", out))
    assert signllava("checkpoint", "pull", REPO, "--out", out, "--overwrite", "--quiet").out == ""
    assert contents(out) == FINETUNED
    assert "holds other files" in error_line(signllava("checkpoint", "pull", REPO, "--out", tmp_path))


def test_a_download_is_repeated_although_a_network_file_system_has_left_a_lock(
    hub: Hub, signllava: Command, tmp_path: Path
) -> None:
    hub.put(NAME, FINETUNED)
    out = tmp_path / "my run"
    pull = ("checkpoint", "pull", REPO, "--out", out)
    assert f"`signllava checkpoint inspect '{out}'`" in signllava(*pull).out
    (out / LOCK_FILE).touch()
    again = signllava(*pull)
    assert again.code == 0, again.err
    assert contents(out) == FINETUNED | {LOCK_FILE: b""}
    refused = signllava("checkpoint", "pull", REPO, "--out", out / "README.md")
    assert "holds other files" in error_line(refused)


@pytest.mark.parametrize("path", ["projector.safetensors", "recipe.yaml"])
def test_what_is_not_intact_or_no_checkpoint_is_refused(
    hub: Hub, signllava: Command, tmp_path: Path, path: str
) -> None:
    hub.put(NAME, FINETUNED)
    hub.served[path] = FINETUNED[path][:-1] + b"!"
    out = tmp_path / "out"
    refused = signllava("checkpoint", "pull", REPO, "--out", out)
    assert f"{path} of {REPO} was not downloaded intact" in error_line(refused)
    assert path not in contents(out)
    assert "config.json" not in contents(out)  # so that it is no checkpoint
    hub.served.clear()
    assert signllava("checkpoint", "pull", REPO, "--out", out).code == 0
    assert contents(out) == FINETUNED
    hub.put(NAME, {name: content for name, content in FINETUNED.items() if name != path})
    shutil.rmtree(out)
    assert f"{REPO} has no {path}, so it is not a checkpoint" in error_line(
        signllava("checkpoint", "pull", REPO, "--out", out)
    )
    hub.failures.append(("GET /api/models", 500))
    assert "the hub answered 500" in error_line(signllava("checkpoint", "pull", REPO, "--out", out))


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a killed upload or download continues with the files that are missing")
def test_a_killed_download_continues(
    hub: Hub, signllava: Command, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    hub.put(NAME, FINETUNED)
    out = tmp_path / "out"
    pull = ("checkpoint", "pull", REPO, "--out", out)
    # huggingface_hub and signllava each rename a file once: this kill comes before the adapter gets its name
    process = subprocess_command(*pull, env=interrupted("adapter_model.safetensors", 1, signal.SIGKILL, "rename"))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, output
    assert {name: content for name, content in contents(out).items() if name in FINETUNED} == {
        "projector.safetensors": FINETUNED["projector.safetensors"]
    }
    sent = hub.sent
    assert signllava(*pull).code == 0
    assert contents(out) == FINETUNED
    assert hub.sent - sent == len(FINETUNED["adapter/adapter_model.safetensors"])
    record_property("kills", 1)
