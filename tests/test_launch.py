"""Ranks that a launcher started stop together, save, and end in one exit code that says why."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Ended, sets, subprocess_command

from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import shipped_folder

Command = Callable[..., Ended]
Launched = Callable[..., subprocess.Popen[str]]
SECONDS_TO_WAIT = 180


@pytest.fixture
def launched(settings: list[str]) -> Iterator[Launched]:
    """A run without end under `multi_cpu`, in its own process; nothing of it outlives the test."""
    processes: list[subprocess.Popen[str]] = []
    endless = ["train.max_steps=50000", "train.save_steps=50000", "train.eval_steps=50000"]

    def command(*words: str, profile: str = "multi_cpu", more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        arguments = sets([*settings, "train.micro_batch_size=2", *endless, *more])
        process = subprocess_command(
            "pretrain", "-r", "toy/tiny_pretrain", *arguments, "--launch", profile, *words, start_new_session=True
        )
        processes.append(process)
        return process

    yield command
    for process in processes:
        for each in (*ranks_of(process), process):
            each.kill()
        process.wait()


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    return sorted(psutil.Process(process.pid).children(), key=lambda rank: rank.pid)


def wait_for_steps(run: Path, process: subprocess.Popen[str], steps: int = 3) -> list[psutil.Process]:
    """Wait until the run has taken some steps; its ranks come back."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < steps:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return ranks_of(process)


def assert_saved(run: Path) -> None:
    last = (run / "metrics.jsonl").read_text().count("\n")
    assert os.readlink(run / "last") == f"step-{last:06d}"


def assert_nothing_left(ranks: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive


def assert_plain(output: str) -> None:
    """No traceback, nothing of torchrun's own log."""
    for words in ("Traceback", "torch/distributed", "closing signal", "exitcode"):
        assert words not in output


@pytest.mark.parametrize(  # SIGUSR1: the two machines below
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.drill)]
)
def test_a_signal_to_the_launcher_stops_all_ranks_with_the_state_saved(
    launched: Launched, tmp_path: Path, number: signal.Signals
) -> None:
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    assert len(ranks) == 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 75, output
    assert "its state is saved" in output
    assert_plain(output)
    assert_saved(tmp_path / "run")
    assert_nothing_left(ranks)


def test_a_signal_before_the_first_step_ends_in_75_too(launched: Launched) -> None:
    """The ranks import torch and have not begun to listen; a requeued job has nothing to lose."""
    process = launched()
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not ranks_of(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 75, output
    assert_plain(output)


@pytest.mark.drill
def test_a_second_ctrl_c_kills(launched: Launched, tmp_path: Path) -> None:
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    for rank in ranks:
        rank.suspend()  # they cannot stop on their own
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 130, output
    assert_plain(output)
    assert_nothing_left(ranks)


def test_a_killed_rank_ends_the_others_with_a_plain_line(launched: Launched, tmp_path: Path) -> None:
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    ranks[1].kill()
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 128 + signal.SIGKILL, output
    assert "error: rank 1 was ended by SIGKILL (out of memory?)" in output
    assert output.count("error: ") == 1
    assert_plain(output)
    assert_nothing_left(ranks)


def test_ranks_of_a_killed_launcher_save_and_stop(launched: Launched, tmp_path: Path) -> None:
    """They would otherwise train on, unseen, and hold the run."""
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    process.kill()
    assert_nothing_left(ranks)
    assert "the launcher is gone" in (tmp_path / "run" / "log.txt").read_text()
    assert_saved(tmp_path / "run")


def test_a_fault_that_all_ranks_see_is_told_once(launched: Launched) -> None:
    process = launched(more=("data.dev=valid",))
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 2, output
    assert output.count("error: ") == 1
    assert "No annotation.valid.json" in output
    assert_plain(output)


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_ranks_of_accelerate_launch_save_too(settings: list[str], tmp_path: Path, number: signal.Signals) -> None:
    """accelerate's own launcher exits with 1 and dies of SIGUSR1, which it does not pass on; the state is saved."""
    profile = str(shipped_folder("accelerate_configs") / "multi_cpu.yaml")
    words = ["-m", "accelerate.commands.launch", "--config_file", profile, "-m", "signllava_cli", "pretrain"]
    arguments = sets([*settings, "train.micro_batch_size=2", "train.max_steps=50000", "train.eval_steps=50000"])
    process = subprocess.Popen(
        [sys.executable, *words, "-r", "toy/tiny_pretrain", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    ranks = wait_for_steps(tmp_path / "run", process)
    process.send_signal(number)
    process.wait(timeout=SECONDS_TO_WAIT)
    assert_nothing_left(ranks)
    assert_saved(tmp_path / "run")


def test_two_machines_train_as_one_and_stop_as_one(launched: Launched, tmp_path: Path) -> None:
    stop_two_machines(launched, tmp_path / "run", "multi_cpu", "MULTI_CPU")


@pytest.mark.drill
def test_two_machines_train_with_zero2(launched: Launched, tmp_path: Path) -> None:
    stop_two_machines(launched, tmp_path / "run", "zero2_cpu", "DEEPSPEED ZeRO-2")


def stop_two_machines(launched: Launched, run: Path, profile: str, distributed_type: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    machines = [
        launched(
            *(
                "--num-machines",
                "2",
                "--num-processes",
                "2",
                "--machine-rank",
                str(rank),
                "--main-process-address",
                address,
            ),
            profile=profile,
        )
        for rank in (0, 1)
    ]
    wait_for_steps(run, machines[0])
    machines[1].send_signal(signal.SIGUSR1)
    outputs = [machine.communicate(timeout=SECONDS_TO_WAIT)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [75, 75], outputs
    assert f"distributed type {distributed_type}, ranks 2" in outputs[0]
    for output in outputs:
        assert_plain(output)
    assert_saved(run)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--launch", "single", "--num-processes", "2"], "is for one process, not for 2"),
        (["--launch", "multi_cpu", "--num-machines", "2"], "the --main-process-address HOST:PORT of the first"),
        (["--launch", "multi_cpu", "--num-machines", "3"], "--num-processes 2 cannot be shared by 3 machines"),
        (["--launch", "multi_cpu", "--main-process-address", "node0"], "launch.main_process_address"),
        (["--launch", "multi_cpu", "--num-machines", "2", "--machine-rank", "2"], "launch.machine_rank: 2 is not"),
    ],
)
def test_what_cannot_be_launched_is_refused(
    signllava: Command, settings: list[str], words: list[str], says: str
) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings), *words)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_file_that_is_no_profile_is_refused(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    for text in ("[", "distributed_type: NO\nnum_procceses: 2", "- 1", "distributed_type: SEVERAL"):
        (tmp_path / "mine.yaml").write_text(text)
        ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings), "--launch", tmp_path / "mine.yaml")
        assert (ended.code, "mine.yaml is not a launch profile" in ended.err) == (2, True), ended.err
        assert len(ended.err.strip().splitlines()) == 1


def test_max_hours_counts_from_the_start_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    alive = (time.time() - psutil.Process().create_time()) / 3600
    later = StopRequest(max_hours=alive + 1)
    assert not later
    now = StopRequest(max_hours=alive / 2)
    assert now
    assert now
    assert capsys.readouterr().out.count("train.max_hours=") == 1
