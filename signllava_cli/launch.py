"""A profile name or file -> accelerate's own launcher, in this process."""

import contextlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from signllava_cli.console import error
from signllava_cli.errors import UserError, require_extra
from signllava_cli.preemption import is_launched
from signllava_cli.processes import signals_passed_on
from signllava_cli.ranks import run_ranks
from signllava_cli.recipe import Launch, Recipe, Stage, require_stage, shipped_folder

if TYPE_CHECKING:
    from accelerate.commands.config.config_args import ClusterConfig

FIRST_ERROR_GRACE_SECONDS = 10.0
LOST_CONNECTION_MESSAGES = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process exited",
)  # gloo, gloo, NCCL


def run_stage(stage: Stage, recipe: Recipe, resume: str, dry_run: bool, source: str | Path) -> None:
    """Train here, or under accelerate's launcher when the recipe names a profile; see `run_here_or_launched`.

    `source` is the file or name that the recipe was read from.
    """

    def train() -> None:
        from signllava_cli.training.loop import train

        train(recipe, stage, resume, dry_run, source)

    if not is_launched():
        require_stage(recipe, stage)
    run_or_launch(recipe.launch, train)


def run_or_launch(config: Launch, work: Callable[[], object]) -> None:
    """Do `work` here, or hand this command line to accelerate's launcher when the settings name a profile.

    A process that a launcher started works, whatever the settings say.

    Raises:
        UserError: anything that the person at the terminal can fix.
        Stopped: the run stopped before its end, on request, with its state saved.
        SystemExit: ranks were launched and did not come to the end; with the exit code of the run.
    """
    if is_launched():
        with _report_first_failure():
            work()
    elif config.profile is None:
        work()
    else:
        with signals_passed_on() as passed_on:
            code = run_ranks(build_launcher_args(config), passed_on)
        if code:
            raise SystemExit(code)


@contextlib.contextmanager
def _report_first_failure() -> Iterator[None]:
    """Of ranks that fail together, one says why.

    A error that all ranks see is told by the first of each machine. A rank that merely lost another gives that one
    time to tell why. In both cases the launcher ends this rank while it waits, unless nobody else has failed.
    """
    try:
        yield
    except UserError:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(FIRST_ERROR_GRACE_SECONDS)
        raise
    except RuntimeError as failure:
        if not any(words in str(failure) for words in LOST_CONNECTION_MESSAGES):
            raise
        time.sleep(FIRST_ERROR_GRACE_SECONDS)
        error(f"rank {os.environ.get('RANK', '0')} lost another rank, on another machine perhaps: {failure}")
        raise SystemExit(1) from None


def find_profile(name: str) -> Path:
    """The accelerate config file `name`, or the shipped profile of that name.

    Raises:
        UserError: there is none; names those that are shipped.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_folder("accelerate_configs") / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    names = sorted(each.stem for each in shipped.parent.glob("*.yaml"))
    raise UserError(f"No launch profile {name}; shipped are {', '.join(names)}.")


def read_profile(file: Path) -> "ClusterConfig":
    """The launch profile in `file`, as accelerate itself reads it.

    Raises:
        UserError: it is not one.
    """
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    try:
        profile = load_config_from_file(str(file))
    except (ValueError, TypeError, AttributeError, OSError, yaml.YAMLError) as fault:
        raise UserError(f"{file} is not a launch profile: {' '.join(str(fault).split())}") from None
    if not isinstance(profile, ClusterConfig):
        raise UserError(f"{file} is a profile for SageMaker, which is not supported.")
    return profile


def build_launcher_args(launch: Launch) -> Namespace:
    """What accelerate's launcher takes to run this command line as the ranks of `launch`.

    Raises:
        UserError: there is no such profile, or it cannot run so many processes on so many machines.
    """
    from accelerate.commands.launch import launch_command_parser

    assert launch.profile is not None
    file = find_profile(launch.profile)
    profile = read_profile(file)
    processes = launch.num_processes or profile.num_processes
    machines = launch.num_machines or profile.num_machines
    host, port = profile.main_process_ip, profile.main_process_port
    if launch.main_process_address is not None:
        host, _, port = launch.main_process_address.rpartition(":")
    elif machines == 1:
        port = 0  # a free one, so that runs of one machine do not meet
    _require_valid_topology(file, profile, processes, machines, f"{host}:{port}" if host and port else None)
    options = {
        "config_file": file,
        "num_processes": processes,
        "num_machines": machines,
        "machine_rank": launch.machine_rank or profile.machine_rank,
        "main_process_port": port,
        "deepspeed_multinode_launcher": "standard",  # torchrun on each machine, as without DeepSpeed; not pdsh
    }
    if host:
        options["main_process_ip"] = host
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return launch_command_parser().parse_args([*words, "-m", "signllava_cli", *sys.argv[1:]])


def _require_valid_topology(
    file: Path, profile: "ClusterConfig", processes: int, machines: int, main_process_address: str | None
) -> None:
    import torch
    from accelerate.utils import DistributedType

    if profile.distributed_type == DistributedType.DEEPSPEED:
        require_extra("deepspeed", str(file), "deepspeed")
    if processes < 1:
        raise UserError(f"{file} does not say how many processes: name them with --num-processes.")
    if processes > 1 and profile.distributed_type == DistributedType.NO:
        raise UserError(f"{file} is for one process, not for {processes}; use the profile multi_gpu or a zero one.")
    if processes % machines:
        raise UserError(f"--num-processes {processes} cannot be shared by {machines} machines.")
    if machines > 1 and main_process_address is None:
        raise UserError(
            f"{file} on {machines} machines: give each the --main-process-address HOST:PORT of the first, and its own "
            "--machine-rank."
        )
    gpus = torch.cuda.device_count()
    if gpus and not profile.use_cpu and processes // machines > gpus:
        raise UserError(
            f"{file}: {processes // machines} processes on this machine, which has {gpus} GPUs; "
            f"say --num-processes {gpus * machines}."
        )
