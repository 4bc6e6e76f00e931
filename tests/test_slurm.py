"""The SLURM scripts are valid, and a job at its time limit saves its state, is requeued, and resumes.

SLURM does not run in the tests: `srun`, `scontrol` and `squeue` are stubs that do what the scripts rely on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

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


@pytest.mark.drill
@pytest.mark.parametrize(("script", "profile"), [("one_node", "multi_gpu"), ("many_nodes", "multi_node")])
def test_a_job_at_its_time_limit_saves_and_is_requeued(
    slurm: dict[str, str], settings: list[str], tmp_path: Path, script: str, profile: str
) -> None:
    """Run the script, edited as a user would, in a batch shell that receives USR1."""
    run, job = tmp_path / "run", tmp_path / "job"
    (job / ".venv" / "bin").mkdir(parents=True)
    (job / ".venv" / "bin" / "activate").touch()
    (job / "requeue.sh").write_text((FOLDER / "requeue.sh").read_text())
    recipe = read_recipe("toy/tiny_pretrain", [*settings, "train.micro_batch_size=2", "train.max_steps=50000"])
    (job / "my_recipe.yaml").write_text(recipe.to_yaml())
    text = (FOLDER / f"{script}.sbatch").read_text()
    assert f"profile={profile} " in text
    (job / "script").write_text(text.replace(f"profile={profile} ", "profile=multi_cpu "))
    environment = slurm if script == "many_nodes" else {**slurm, "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}
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
