"""A network file system lists a folder as it was some seconds ago: the newest checkpoint is missing in the list."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

Command = Callable[..., Ended]
PROMISE = pytest.mark.reliability(
    "Faults", "a stale folder listing does not make a run resume an older checkpoint silently"
)


@pytest.fixture
def stopped(signllava: Command, settings: list[str], tmp_path: Path) -> list[str]:
    """A command that has trained up to step 4, with checkpoints of the steps 2 and 4."""
    words = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.preflight=false", "train.eval_steps=6"])]
    ended = signllava(*words, *sets(["train.stop_at_step=4"]))
    assert ended.code == 75, ended.err
    assert {path.name for path in (tmp_path / "run").glob("step-*")} == {"step-000002", "step-000004"}
    return words


@PROMISE
def test_the_newest_checkpoint_is_found_by_its_link(
    signllava: Command, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_folder = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": [name for name in list_folder(path) if name != "step-000004"])
    ended = signllava(*stopped, *sets(["train.stop_at_step=5"]))
    assert ended.code == 75, ended.err
    assert "step-000004 at step 4" in ended.out


@PROMISE
def test_a_link_to_a_missing_checkpoint_is_named(signllava: Command, stopped: list[str], tmp_path: Path) -> None:
    shutil.move(tmp_path / "run" / "step-000004", tmp_path / "moved")
    ended = signllava(*stopped, *sets(["train.stop_at_step=5"]))
    assert ended.code == 75, ended.err
    assert "last names step-000004, which is missing; resuming from step-000002" in ended.out
    assert "step-000002 at step 2" in ended.out
