"""The SLURM scripts are valid, and a job at its time limit saves its state, is requeued, and resumes.

SLURM does not run in the tests: `srun`, `scontrol` and `squeue` are stubs that do what the scripts rely on.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Ended, sets, subprocess_command, wait_until_stopped
from safetensors.torch import load_file

from signllava_cli.recipe import read_recipe, shipped_folder, shipped_recipes

FOLDER = shipped_folder("recipes") / "slurm"
SCRIPTS = sorted(FOLDER.iterdir())
SHELLCHECK = Path(sys.executable).parent / "shellcheck"

SRUN = """
shift
for node in $(seq 0 $((SLURM_NNODES - 1))); do
    SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
trap 'kill -USR1 "${tasks[@]}"' USR1
highest=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2> /dev/null; do wait "$task"; done
    wait "$task"
    code=$?
    ((code > highest)) && highest=$code
done
exit $highest
"""
SCONTROL = """
if [[ $1 == show ]]; then printf '127.0.0.1\\n127.0.0.1\\n'; else echo "$*" >> "$REQUEUED"; fi
"""


ONE_NODE = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch job of two nodes with a GPU each, with the stubs first on the PATH."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "squeue": 'echo "$STATE"'}.items():
        (binaries / name).write_text(f"#!/bin/bash\n{text}\n")
        (binaries / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REQUEUED": str(tmp_path / "requeued"),
        "STATE": "RUNNING",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
    }


def read_requeued(slurm: dict[str, str]) -> str:
    file = Path(slurm["REQUEUED"])
    return file.read_text() if file.exists() else ""


def test_the_scripts_are_shipped_and_not_listed_as_recipes() -> None:
    assert [script.name for script in SCRIPTS] == [
        "many_nodes.sbatch",
        "one_node.sbatch",
        "requeue.sh",
        "study.sbatch",
    ]
    assert not [name for name in shipped_recipes() if "slurm" in name]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_no_error_in_the_script(script: Path) -> None:
    checks: list[list[str | Path]] = [["bash", "-n"], [SHELLCHECK, "--severity=warning"]]
    for check in checks:
        ended = subprocess.run([*check, script], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_scripts_can_be_copied(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    assert signllava("recipes", "copy", "slurm", tmp_path / "jobs").code == 0
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [script.name for script in SCRIPTS]


@pytest.mark.reliability("Nodes", "a SLURM job at its time limit saves and is requeued")
@pytest.mark.parametrize(
    ("code", "state", "is_requeued"), [(75, "RUNNING", True), (75, "COMPLETING", False), (2, "RUNNING", False)]
)
def test_only_a_stopped_job_that_was_not_cancelled_is_requeued(
    slurm: dict[str, str], code: int, state: str, is_requeued: bool
) -> None:
    command: list[str | Path] = ["bash", FOLDER / "requeue.sh", "bash", "-c", f"exit {code}"]
    ended = subprocess.run(command, env={**slurm, "STATE": state}, check=False)
    assert ended.returncode == code
    assert read_requeued(slurm) == (f"requeue {os.getpid()}\n" if is_requeued else "")


def write_job(job: Path, script: str, profile: str, settings: list[str]) -> None:
    """The folder of a job: the script for processes on the CPU, a recipe, and what the script needs beside it."""
    (job / ".venv" / "bin").mkdir(parents=True)
    (job / ".venv" / "bin" / "activate").touch()
    (job / "requeue.sh").write_text((FOLDER / "requeue.sh").read_text())
    (job / "my_recipe.yaml").write_text(read_recipe("toy/tiny_pretrain", settings).to_yaml())
    text = (FOLDER / f"{script}.sbatch").read_text()
    assert f"profile={profile} " in text
    (job / "script").write_text(text.replace(f"profile={profile} ", "profile=multi_cpu "))


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a SLURM job at its time limit saves and is requeued")
@pytest.mark.parametrize(("script", "profile"), [("one_node", "multi_gpu"), ("many_nodes", "multi_node")])
def test_a_job_at_its_time_limit_saves_and_is_requeued(
    slurm: dict[str, str], settings: list[str], tmp_path: Path, script: str, profile: str
) -> None:
    """Run the script, edited as a user would, in a batch shell that receives USR1."""
    run, job = tmp_path / "run", tmp_path / "job"
    write_job(job, script, profile, [*settings, "train.micro_batch_size=2", "train.max_steps=50000"])
    environment = slurm if script == "many_nodes" else {**slurm, **ONE_NODE}
    shell = subprocess.Popen(
        ["bash", "script"], cwd=job, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 180
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        assert shell.poll() is None, shell.communicate()[0]
        time.sleep(0.05)
    shell.send_signal(signal.SIGUSR1)
    output, _ = shell.communicate(timeout=180)
    assert shell.returncode == 75, output
    assert "distributed type MULTI_CPU, ranks 2" in output
    assert "its state is saved" in output
    assert read_requeued(slurm) == f"requeue {os.getpid()}\n"
    assert (run / "last" / "resume").is_dir()


def wait_until_pending(family: list[psutil.Process]) -> None:
    """Wait until SIGUSR1 has passed through shells and launchers to the rank that is stopped."""
    deadline = time.monotonic() + 60
    status = [Path(f"/proc/{process.pid}/status") for process in family if process.status() == psutil.STATUS_STOPPED]
    pending: list[int] = []
    while not any(signals >> (signal.SIGUSR1 - 1) & 1 for signals in pending):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        pending = [int(match, 16) for file in status for match in re.findall(r"ShdPnd:\s*(\w+)", file.read_text())]


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "requeued SLURM jobs end with the weights of an uninterrupted run")
def test_a_job_that_is_requeued_until_its_end_has_the_weights_of_an_uninterrupted_run(
    slurm: dict[str, str], settings: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At the time limit of the first two jobs, each requeued job starts the script again, as SLURM does."""
    run, whole, job = tmp_path / "run", tmp_path / "whole", tmp_path / "job"
    write_job(job, "many_nodes", "multi_node", [*settings, "train.micro_batch_size=2"])
    for number in (1, 2, 3):
        limit = f"append:metrics.jsonl:2:{int(signal.SIGSTOP)}" if number < 3 else ""
        path = os.pathsep.join([str(Path(__file__).parent / "interrupted"), os.environ.get("PYTHONPATH", "")])
        environment = {**slurm, "PYTHONPATH": path.rstrip(os.pathsep), "INTERRUPT": limit}
        shell = subprocess.Popen(
            ["bash", "script"], cwd=job, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if number < 3:
            family = wait_until_stopped(shell)  # rank 0, before it logs a second step
            shell.send_signal(signal.SIGUSR1)
            wait_until_pending(family)
            for process in family:
                process.resume()
        output, _ = shell.communicate(timeout=300)
        assert shell.returncode == (75 if number < 3 else 0), output
        assert read_requeued(slurm) == f"requeue {os.getpid()}\n" * min(number, 2)
        assert ("resumed from" in output) == (number > 1), output
    record_property("requeued jobs", 2)
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, "train.micro_batch_size=2"])]
    process = subprocess_command(*command, "--set", f"run.output_dir={whole}", "--launch", "multi_cpu")
    assert process.wait(timeout=300) == 0, process.communicate()[0]
    weights, expected = (load_file(folder / "last" / "projector.safetensors") for folder in (run, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
