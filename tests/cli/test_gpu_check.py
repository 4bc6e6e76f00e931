"""`signllava env --gpu-check`: what it sees on a CPU, what it names as wrong or slow, and what hides no check."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets

from signllava_cli.machine_checks import check_run_folder as run_folder_check
from signllava_cli.machine_checks.check_result import CheckResult, run_in_process

Command = Callable[..., Ended]
TINY = ["--recipe", "toy/tiny_pretrain"]


def check(signllava: Command, *words: object) -> tuple[Ended, dict[str, dict[str, Any]]]:
    """The end of the command, and its checks by their names."""
    ended = signllava("env", "--gpu-check", "--json", *words)
    return ended, {each["name"]: each for each in json.loads(ended.out)["checks"]}


def only(*parts: str) -> list[str]:
    return [word for part in parts for word in ("--only", part)]


@pytest.mark.drill
def test_a_good_machine_passes(signllava: Command, tiny_llm: Path, tmp_path: Path) -> None:
    options = [*TINY, "--llm", tiny_llm, "--run-folder", tmp_path, *only("gpus", "llm", "run-folder")]
    ended, checks = check(signllava, *options)
    assert ended.code == 0, ended.out + ended.err
    assert not any(each["problem"] for each in checks.values())
    assert "relative difference" in checks["4 bits"]["seen"]
    assert "LlamaForCausalLM" in checks["LLM"]["seen"]
    assert "KV cache" in checks["decoding"]["seen"]
    assert "with prefix cache: losses" in checks["training step"]["seen"]
    assert "tokens per second" in checks["training step"]["seen"]
    assert checks["locks"]["seen"] == "a second process is kept out"
    assert "MB/s" in checks["writing"]["seen"]
    assert list(tmp_path.iterdir()) == []
    if not torch.cuda.is_available():
        skipped = [name for name, each in checks.items() if (each["seen"], each["state"]) == ("no GPU", "skipped")]
        assert skipped == ["GPU", "speed", "NCCL", "attention"]


@pytest.mark.drill
def test_two_ranks_have_the_losses_of_one(signllava: Command) -> None:
    ended, checks = check(signllava, *only("ranks"))
    assert ended.code == 0, ended.out + ended.err
    assert list(checks) == ["two ranks"]
    assert "losses 6." in checks["two ranks"]["seen"]
    assert "2 ranks" in checks["two ranks"]["seen"]


def test_a_run_folder_that_cannot_be_written_is_named(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    ended = signllava("env", "--gpu-check", "--run-folder", folder, *only("run-folder"))
    assert ended.code == 2
    assert f"PROBLEM  run folder: {folder} cannot be written (Not a directory): choose another" in ended.out
    assert "1 of 1 checks" in ended.err


def test_nothing_is_left_of_a_new_run_folder_and_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for check_name in ("_try_lock", "_try_save"):
        monkeypatch.setattr(run_folder_check, check_name, lambda _: ("", ""))
    (tmp_path / "mine").mkdir()
    list(run_folder_check.check_run_folder(tmp_path / "mine" / "new" / "run"))
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


@pytest.mark.drill
def test_a_slow_decoder_is_named_with_its_reason(signllava: Command, tiny_llm: Path) -> None:
    eager = sets(["llm.attn_implementation=eager"])
    ended, checks = check(signllava, *TINY, "--llm", tiny_llm, *eager, *only("llm"))
    assert ended.code == 2
    assert "decoding" in ended.err
    assert "transformers' generate, because" in checks["decoding"]["seen"]
    assert "llm.attn_implementation" in checks["decoding"]["problem"]
    assert "no prefix cache" in checks["training step"]["problem"]


@pytest.mark.drill
def test_an_llm_that_cannot_be_loaded_hides_no_other_check(signllava: Command, tmp_path: Path) -> None:
    options = ["--llm", tmp_path / "missing", "--run-folder", tmp_path, *only("llm", "run-folder")]
    ended, checks = check(signllava, *options)
    assert ended.code == 2
    assert "1 of " in ended.err
    assert "missing" in checks["LLM"]["problem"]
    assert checks["training step"]["state"] == checks["decoding"]["state"] == "skipped"
    assert checks["locks"]["state"] == checks["writing"]["state"] == "ok"


def test_what_was_not_checked_is_said(signllava: Command) -> None:
    ended, checks = check(signllava, *only("llm", "run-folder"))
    assert ended.code == 0
    assert [each["state"] for each in checks.values()] == ["skipped", "skipped"]
    assert "--llm" in checks["LLM"]["seen"]
    assert "--run-folder" in checks["run folder"]["seen"]


def test_options_of_the_check_need_it(signllava: Command, tmp_path: Path) -> None:
    ended = signllava("env", "--run-folder", tmp_path)
    assert ended.code == 2
    assert "--gpu-check" in ended.err


def first_then_killed() -> Iterator[CheckResult]:
    yield CheckResult("first", "passed")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_a_problem_and_earlier_results_are_kept() -> None:
    first, last = run_in_process("the group", first_then_killed)
    assert first == CheckResult("first", "passed")
    assert last.name == "the group"
    assert "SIGKILL" in last.problem
