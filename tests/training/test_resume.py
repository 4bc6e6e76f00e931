"""A stopped or killed run that is resumed ends with the weights of an uninterrupted run, bit for bit."""

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ALL_TASKS, Ended, MadeOnce, interrupted, sets, subprocess_command
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

Command = Callable[..., Ended]


def read_weights(run: Path, step: str = "last") -> dict[str, torch.Tensor]:
    projector = load_file(run / step / "projector.safetensors")
    adapter = run / step / "adapter" / "adapter_model.safetensors"
    return projector | (load_file(adapter) if adapter.exists() else {})


def read_metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timings = ("tokens_per_second", "data_wait_seconds")
    return [{key: value for key, value in line.items() if key not in timings} for line in lines]


def assert_same_run(expected: Path, run: Path) -> None:
    expected_weights, weights = read_weights(expected), read_weights(run)
    assert expected_weights.keys() == weights.keys()
    for name, tensor in expected_weights.items():
        assert torch.equal(tensor, weights[name]), name
    assert read_metrics(expected) == read_metrics(run)


STOPS = [  # around a save, an evaluation and the end of an epoch; the first and the last step
    pytest.param((5, 8), id="two stops"),
    pytest.param((1, 4, 5, 8, 11), id="five stops", marks=pytest.mark.drill),
]


@pytest.mark.parametrize("recipe_name", [pytest.param("tiny_pretrain", marks=pytest.mark.drill), "tiny_finetune"])
@pytest.mark.parametrize("stops", STOPS)
def test_resume_equals_uninterrupted(
    signllava: Command, settings: list[str], tmp_path: Path, recipe_name: str, stops: tuple[int, ...]
) -> None:
    """Both stages, on a split so small that the run has three epochs."""
    stage = recipe_name.removeprefix("tiny_")
    common = [*settings, *ALL_TASKS, "data.train=dev", "train.max_steps=12", "train.eval_steps=5"]
    common += ["init.projector=null", "train.save_total_limit=20", "train.gradient_checkpointing=true"]
    if stage == "finetune":
        common += ["lora.lora_dropout=0.2"]
    command = [stage, "--recipe", f"toy/{recipe_name}"]
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    ended = signllava(*command, *sets([*common, f"run.output_dir={uninterrupted}"]))
    assert ended.code == 0, ended.err
    for step in stops:
        ended = signllava(*command, *sets([*common, f"run.output_dir={stopped}", f"train.stop_at_step={step}"]))
        assert ended.code == 75, ended.out + ended.err
        assert f"stopped after step {step} of 12" in ended.out
    ended = signllava(*command, *sets([*common, f"run.output_dir={stopped}"]))
    assert ended.code == 0
    assert "resumed from" in ended.out
    assert_same_run(uninterrupted, stopped)


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a run that is killed often ends with the weights of an uninterrupted one")
def test_a_killed_run_resumes_and_ends_with_the_same_weights(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """After SIGKILL the run resumes from the newest checkpoint, with the metrics up to its step."""
    common = [
        *settings,
        "train.max_steps=8",
        "train.save_steps=3",
        "train.eval_steps=6",
        "train.save_total_limit=3",
    ]
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    command = ["pretrain", "--recipe", "toy/tiny_pretrain"]
    assert signllava(*command, *sets([*common, f"run.output_dir={uninterrupted}"])).code == 0
    environment = interrupted("metrics.jsonl", 6, signal.SIGKILL)  # step 6, before its checkpoint
    process = subprocess_command(*command, *sets([*common, f"run.output_dir={killed}"]), env=environment)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, output
    assert read_metrics(killed)[-1]["step"] == 5
    assert os.readlink(killed / "last") == "step-000003"
    (killed / "step-000999.tmp").mkdir()  # left by a kill during a save
    ended = signllava(*command, *sets([*common, f"run.output_dir={killed}"]))
    assert ended.code == 0
    assert "step-000999.tmp is an incomplete checkpoint of a killed run; removed" in ended.out
    assert_same_run(uninterrupted, killed)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.drill)])
@pytest.mark.reliability("Faults", "a signal stops a run with its state saved, on every rank")
def test_a_signal_stops_at_a_step_boundary_with_the_state_saved(
    settings: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    arguments = sets([*settings, "train.max_steps=5000", "train.save_steps=5000", "train.eval_steps=5000"])
    arguments += sets(["data.num_workers=1"])
    process = subprocess_command("pretrain", "--recipe", "toy/tiny_pretrain", *arguments, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, number)  # the whole process group, also the workers, as a scheduler does
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    last = read_metrics(run)[-1]["step"]
    assert os.readlink(run / "last") == f"step-{last:06d}"


@pytest.fixture
def uninterrupted(made_once: MadeOnce, signllava: Command, settings: list[str]) -> Path:
    """The run of these settings, made once. Not to be written to."""

    def make(folder: Path) -> None:
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, f"run.output_dir={folder}"]))
        assert ended.code == 0, ended.err

    return made_once("resume-uninterrupted", make)


@pytest.mark.parametrize(
    "file",
    [
        "projector.safetensors",
        *(pytest.param(file, marks=pytest.mark.drill) for file in ("resume/optimizer.safetensors", "config.json")),
    ],
)
@pytest.mark.reliability("Faults", "a damaged checkpoint is named, and the one before it is resumed")
def test_a_run_resumes_from_the_previous_checkpoint_if_the_newest_is_truncated(
    signllava: Command, settings: list[str], uninterrupted: Path, tmp_path: Path, file: str
) -> None:
    command, run = ["pretrain", "--recipe", "toy/tiny_pretrain"], tmp_path / "run"
    assert signllava(*command, *sets([*settings, "train.stop_at_step=5"])).code == 75
    os.truncate(run / "step-000005" / file, 30)
    ended = signllava(*command, *sets(settings))
    assert ended.code == 0
    assert "step-000005 cannot be resumed" in ended.out
    assert "at step 4" in ended.out
    assert_same_run(uninterrupted, run)


def test_resume_from_a_missing_folder_is_an_error(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", "--resume", tmp_path / "none", *sets(settings))
    assert ended.code == 2
    assert "not a complete checkpoint" in ended.err


def test_resume_from_a_checkpoint_of_another_run_is_an_error(
    signllava: Command, settings: list[str], run: Path
) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", "--resume", run / "last", *sets(settings))
    assert ended.code == 2
    assert "is a checkpoint of another run than" in ended.err
    assert "to start from its weights, set init.projector." in ended.err


def test_never_does_not_overwrite_a_run_and_unsafe_changes_are_named(signllava: Command, settings: list[str]) -> None:
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.stop_at_step=2"])]
    assert signllava(*command).code == 75
    ended = signllava(*command, "--resume", "never")
    assert (ended.code, "already holds checkpoints" in ended.err) == (2, True)
    ended = signllava(*command, "--set", "train.learning_rate=1e-5", "--set", "streams.mae.stride=2")
    assert ended.code == 2
    assert "train.learning_rate: " in ended.err
    assert "streams.mae.stride: 1 -> 2" in ended.err
    ended = signllava(*command, "--set", "train.save_steps=3", "--set", "train.stop_at_step=3")
    assert ended.code == 75
    assert "resumed with train.save_steps: 2 -> 3" in ended.out


def test_resume_refuses_other_data_and_another_llm(
    signllava: Command, settings: list[str], corpus: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    """Both may be moved to another folder, but must not change."""
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.stop_at_step=2"])]
    assert signllava(*command).code == 75
    data, llm = tmp_path / "data", tmp_path / "llm"
    shutil.copytree(corpus, data)
    shutil.copytree(tiny_llm, llm)
    moved = sets([f"data.root={data}", f"llm.path={llm}", "train.stop_at_step=3"])
    assert signllava(*command, *moved).code == 75
    annotation = data / "annotation.train.json"
    text = annotation.read_text()
    annotation.write_text(text.replace("grandmother", "grandfather"))
    ended = signllava(*command, *moved)
    assert (ended.code, "was trained on other data" in ended.err) == (2, True)
    annotation.write_text(text)
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(llm)).save_pretrained(llm)
    ended = signllava(*command, *moved)
    assert (ended.code, "has the same sizes, but other weights" in ended.err) == (2, True)


@pytest.mark.reliability("Faults", "a damaged checkpoint is named, and the one before it is resumed")
def test_a_damaged_train_state_and_a_damaged_line_of_metrics_do_not_stop_a_resume(
    signllava: Command, settings: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    """A checkpoint whose progress.json is of another step is skipped; a line of NULs in metrics.jsonl is removed."""
    command = ["pretrain", "-r", "toy/tiny_pretrain"]
    run = tmp_path / "run"
    assert signllava(*command, *sets([*settings, "train.stop_at_step=5"])).code == 75
    (run / "step-000005" / "progress.json").write_text("{}")
    with open(run / "metrics.jsonl", "a") as file:
        file.write("\0" * 20 + "\n")
    ended = signllava(*command, *sets(settings))
    assert ended.code == 0, ended.err
    assert "step-000005 cannot be resumed: its progress.json is of step 0" in ended.out
    assert "metrics.jsonl: removed 1 damaged line" in ended.out
    assert_same_run(uninterrupted, run)
    files = [folder / "last" / "projector.safetensors" for folder in (uninterrupted, run)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.reliability("Faults", "of two commands that write one folder, the second is refused")
def test_two_runs_do_not_share_a_folder(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings))
    assert ended.code == 2
    assert "Another process is writing to" in ended.err
