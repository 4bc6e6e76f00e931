"""Launched ranks stop together, save their state, and end with one exit code that names the cause."""

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

from signllava_cli.generation.distributed import rank_device, require_visible_gpu
from signllava_cli.launch import FIRST_ERROR_GRACE_SECONDS, _report_first_failure
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import shipped_folder

Command = Callable[..., Ended]
Launched = Callable[..., subprocess.Popen[str]]
SECONDS_TO_WAIT = 180


@pytest.fixture
def launched(settings: list[str]) -> Iterator[Launched]:
    """Start a run of 50,000 steps under `multi_cpu` in its own process; every process is killed after the test."""
    processes: list[subprocess.Popen[str]] = []
    many_steps = ["train.max_steps=50000", "train.save_steps=50000", "train.eval_steps=50000"]

    def command(*words: str, profile: str = "multi_cpu", more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        arguments = sets([*settings, "train.micro_batch_size=2", *many_steps, *more])
        process = subprocess_command(
            "pretrain", "-r", "toy/tiny_pretrain", *arguments, "--launch", profile, *words, start_new_session=True
        )
        processes.append(process)
        return process

    yield command
    for process in processes:
        for running in (*find_ranks(process), process):
            running.kill()
        process.wait()


def find_ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    return sorted(psutil.Process(process.pid).children(), key=lambda rank: rank.pid)


def wait_for_steps(run: Path, process: subprocess.Popen[str], steps: int = 3) -> list[psutil.Process]:
    """Wait until the run has taken some steps, and return its ranks."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < steps:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return find_ranks(process)


def assert_saved(run: Path) -> None:
    last = (run / "metrics.jsonl").read_text().count("\n")
    assert os.readlink(run / "last") == f"step-{last:06d}"


def assert_all_ended(ranks: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive


def assert_no_traceback(output: str) -> None:
    """The output holds no traceback and no log lines of torchrun."""
    for words in ("Traceback", "torch/distributed", "closing signal", "exitcode"):
        assert words not in output


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])  # the test of two machines sends SIGUSR1
@pytest.mark.reliability("Faults", "a signal stops a run with its state saved, on every rank")
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
    assert_no_traceback(output)
    assert_saved(tmp_path / "run")
    assert_all_ended(ranks)


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a signal stops a run with its state saved, on every rank")
def test_a_signal_to_one_rank_stops_all_and_the_log_says_so(launched: Launched, tmp_path: Path) -> None:
    process = launched()
    wait_for_steps(tmp_path / "run", process)[1].send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 75, output
    assert "another rank was asked to stop" in (tmp_path / "run" / "log.txt").read_text()
    assert_saved(tmp_path / "run")


@pytest.mark.reliability("Nodes", "a signal before the ranks have started stops the launch")
def test_a_signal_before_the_first_step_exits_with_75(launched: Launched) -> None:
    """The ranks import torch and have no signal handlers yet; there is no state to save."""
    process = launched()
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not find_ranks(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 75, output
    assert_no_traceback(output)


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a signal before the ranks have started stops the launch")
def test_a_signal_while_the_launcher_asks_for_gpus_is_not_lost(
    launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate runs nvidia-smi before it starts the ranks: a child too, which the signal ends instead of them."""
    program, started = tmp_path / "bin" / "nvidia-smi", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    process = launched()
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 75, output
    assert_no_traceback(output)


@pytest.mark.drill
def test_a_second_ctrl_c_kills(launched: Launched, tmp_path: Path) -> None:
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    for rank in ranks:
        rank.suspend()  # suspended ranks cannot stop by themselves
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 130, output
    assert_no_traceback(output)
    assert_all_ended(ranks)


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a killed rank or launcher ends the run, and a rerun resumes to the same weights")
def test_a_killed_rank_ends_the_others_with_one_error_line(launched: Launched, tmp_path: Path) -> None:
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    ranks[1].kill()
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 128 + signal.SIGKILL, output
    assert "error: rank 1 was ended by SIGKILL (out of memory?)" in output
    assert output.count("error: ") == 1
    assert_no_traceback(output)
    assert_all_ended(ranks)


def test_a_rank_that_was_asked_to_stop_does_not_wait_for_a_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """The launcher would kill it after 30 seconds, and could then not tell it from the rank that has failed."""

    def lose_connection() -> None:
        with _report_first_failure(), StopRequest().handle_signals():
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("Connection closed by peer [127.0.0.1]:29500")

    start_time = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        lose_connection()
    assert ended.value.code == 1
    assert time.monotonic() - start_time < FIRST_ERROR_GRACE_SECONDS / 2
    assert "error: " not in capsys.readouterr().err


@pytest.mark.drill
@pytest.mark.reliability("Faults", "a killed rank or launcher ends the run, and a rerun resumes to the same weights")
def test_ranks_save_and_stop_when_their_launcher_is_killed(launched: Launched, tmp_path: Path) -> None:
    """Otherwise they would go on training unnoticed, and keep the lock of the run folder."""
    process = launched()
    ranks = wait_for_steps(tmp_path / "run", process)
    process.kill()
    assert_all_ended(ranks)
    assert "the launcher has ended" in (tmp_path / "run" / "log.txt").read_text()
    assert_saved(tmp_path / "run")


@pytest.mark.drill
def test_an_error_on_all_ranks_is_reported_once(launched: Launched) -> None:
    process = launched(more=("data.dev=valid",))
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 2, output
    assert output.count("error: ") == 1
    assert "No annotation.valid.json" in output
    assert_no_traceback(output)


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_ranks_of_accelerate_launch_save_and_stop(
    settings: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    """accelerate's launcher exits with 1, and SIGUSR1, which it does not forward, ends it; the state is saved."""
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
    assert_all_ended(ranks)
    assert_saved(tmp_path / "run")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a signal to one launcher stops the ranks of all nodes with the state saved")
def test_two_machines_train_as_one_and_stop_as_one(launched: Launched, tmp_path: Path) -> None:
    stop_two_machines(launched, tmp_path / "run", "multi_cpu", "MULTI_CPU")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a signal to one launcher stops the ranks of all nodes with the state saved")
def test_two_machines_train_with_zero2(launched: Launched, tmp_path: Path) -> None:
    stop_two_machines(launched, tmp_path / "run", "zero2_cpu", "DEEPSPEED ZeRO-2")


def stop_two_machines(launched: Launched, run: Path, profile: str, distributed_type: str) -> None:
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    machines = [
        launched(
            *f"--num-machines 2 --num-processes 2 --machine-rank {rank}".split(),
            *f"--main-process-ip 127.0.0.1 --main-process-port {port}".split(),
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
        assert_no_traceback(output)
    assert_saved(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launch", "single", "--num-processes", "2"], "is for one process, not for 2"),
        (
            ["--launch", "multi_cpu", "--num-machines", "2"],
            "add --main-process-ip and --main-process-port of machine 0",
        ),
        (["--launch", "multi_cpu", "--num-machines", "3"], "--num-processes 2 is not a multiple of 3 machines"),
        (["--launch", "multi_cpu", "--main-process-ip", "node0"], "launch.main_process_port: missing"),
        (["--launch", "multi_cpu", "--num-machines", "2", "--machine-rank", "2"], "launch.machine_rank: 2 is not"),
    ],
)
def test_a_launch_that_cannot_work_is_refused_in_one_line(
    signllava: Command, settings: list[str], words: list[str], message: str
) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings), *words)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_file_that_is_not_a_profile_is_refused(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    for text in ("[", "distributed_type: NO\nnum_procceses: 2", "- 1", "distributed_type: SEVERAL"):
        (tmp_path / "profile.yaml").write_text(text)
        ended = signllava(
            "pretrain", "-r", "toy/tiny_pretrain", *sets(settings), "--launch", tmp_path / "profile.yaml"
        )
        assert (ended.code, "profile.yaml is not a launch profile" in ended.err) == (2, True), ended.err
        assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.reliability("Faults", "a clock that jumps by hours changes nothing")
def test_max_hours_does_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    for hours in (-3, 3):
        monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
        assert not StopRequest(max_hours=1)
        assert StopRequest(max_hours=1e-6)


def test_max_hours_counts_from_the_start_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    hours = (time.time() - psutil.Process().create_time()) / 3600
    assert not StopRequest(max_hours=hours + 1)
    request = StopRequest(max_hours=hours / 2)
    assert request
    assert request  # the second test prints no second message
    assert capsys.readouterr().out.count("train.max_hours=") == 1


def test_a_launch_on_the_cpu_uses_no_gpu_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank_device().type == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # as accelerate sets it for the profile multi_cpu
    assert rank_device().type == "cpu"
    require_visible_gpu()


@pytest.mark.parametrize("command", ["pretrain", "generate"])
def test_a_rank_without_a_gpu_of_its_own_is_refused(
    command: str, run: Path, settings: list[str], signllava: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as the second one of torchrun on one GPU, or one that Slurm lets see a single GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    words: dict[str, list[object]] = {
        "pretrain": ["--recipe", "toy/tiny_pretrain", *sets(settings)],
        "generate": ["--checkpoint", run, "--split", "dev", "--out", tmp_path / "predictions"],
    }
    ended = signllava(command, *words[command])
    assert ended.code == 2
    assert "LOCAL_RANK 1 sees 1 GPU" in ended.err
    assert ended.err.count("\n") == 1
