"""Start a command as the ranks of a launch profile, through accelerate's own launcher in this process."""

import contextlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from signllava_cli.console import error, info, loading_packages
from signllava_cli.errors import UserError, first_line, format_count, require_extra
from signllava_cli.preemption import STOP_REQUESTED, is_launched
from signllava_cli.processes import forward_signals
from signllava_cli.ranks import run_ranks
from signllava_cli.recipe import YAML_ERRORS, Launch, Recipe, Stage, require_stage, shipped_folder, shipped_profiles

if TYPE_CHECKING:
    from accelerate.commands.config.config_args import ClusterConfig

TORCH_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
MAX_PROFILE_BYTES = 1 << 16  # PyYAML reads some 100 kB a second
FIRST_ERROR_GRACE_SECONDS = 30  # a launcher on a busy machine may take long to end the other ranks
LOST_CONNECTION_MESSAGES = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process exited",
)  # gloo, gloo, NCCL


def run_stage(stage: Stage, recipe: Recipe, resume: str, dry_run: bool, source: str | Path) -> None:
    """Train in this process, or as ranks when the recipe names a launch profile; see `run_or_launch`.

    Args:
        source: the file or shipped name that the recipe was read from.
    """

    def train() -> None:
        with loading_packages():
            from signllava_cli.training.loop import train

        train(recipe, stage, resume, dry_run, source)

    if not is_launched():
        require_stage(recipe, stage)
    run_or_launch(recipe.launch, train)


def run_or_launch(config: Launch, task: Callable[[], object]) -> None:
    """Run `task` in this process, or run this command line as ranks when `config` names a launch profile.

    A process that a launcher started always runs `task` itself.

    Raises:
        UserError: something that the user can fix.
        RunStopped: the run was stopped before its end; its state is saved.
        SystemExit: the ranks ended with an error; the code is the exit code of the run.
    """
    if is_launched():
        with _report_first_failure():
            task()
    elif config.profile is None:
        task()
    else:
        _import_torch_without_log()
        with forward_signals() as received:
            code = run_ranks(build_launcher_args(config), received)
        if code:
            raise SystemExit(code)


@contextlib.contextmanager
def _report_first_failure() -> Iterator[None]:
    """Let one rank report the error of ranks that fail together.

    An error that all ranks raise is reported by local rank 0 of each machine. A rank that only lost its connection to
    another rank waits, so that the other rank can report the cause. The launcher ends the waiting rank, unless no
    other rank has failed. It need not wait if the launcher has asked it to stop: then the cause is known.
    """
    try:
        yield
    except UserError:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(FIRST_ERROR_GRACE_SECONDS)
        raise
    except RuntimeError as failure:
        line = first_line(failure)
        causes = [line[line.index(message) :] for message in LOST_CONNECTION_MESSAGES if message in line]
        if not causes:
            raise
        message = f"rank {os.environ.get('RANK', '0')} lost the connection to another rank"
        if STOP_REQUESTED in getattr(failure, "__notes__", ()):
            info(f"{message}, after {STOP_REQUESTED}")
        else:
            time.sleep(FIRST_ERROR_GRACE_SECONDS)
            cause = causes[0].partition(". ")[0]
            error(f"{message} (on another machine?): {cause}; run the same command again to resume.")
        raise SystemExit(1) from None


def _import_torch_without_log() -> None:
    """Import torch so that, in this launcher alone, it logs no failed attempt to connect; `run_ranks` reports them.

    torch reads the variable when it is imported.
    """
    level = os.environ.get(TORCH_LOG_LEVEL)
    os.environ[TORCH_LOG_LEVEL] = "FATAL"
    with loading_packages():
        import torch  # noqa: F401

    if level is None:
        del os.environ[TORCH_LOG_LEVEL]
    else:
        os.environ[TORCH_LOG_LEVEL] = level


def find_profile(name: str) -> Path:
    """The accelerate config file `name`, or the shipped profile of that name.

    Raises:
        UserError: there is none; the message lists the shipped profiles.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_folder("accelerate_configs") / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise UserError(f"No launch profile {name}; choose a file or one of {', '.join(shipped_profiles())}.")


def read_profile(file: Path) -> "ClusterConfig":
    """Read the launch profile `file` with accelerate's own reader.

    Raises:
        UserError: the file is not a launch profile.
    """
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    if file.stat().st_size > MAX_PROFILE_BYTES:
        raise UserError(f"{file} is not a launch profile: it has more than {MAX_PROFILE_BYTES:,} bytes.")
    try:
        profile = load_config_from_file(str(file))
    except (OSError, *YAML_ERRORS) as failure:
        raise UserError(f"{file} is not a launch profile: {' '.join(str(failure).split())}") from None
    if not isinstance(profile, ClusterConfig):
        raise UserError(
            f"{file} is a profile for SageMaker, which is not supported; use accelerate's cluster format."
        )
    return profile


def build_launcher_args(config: Launch) -> Namespace:
    """The arguments with which accelerate's launcher runs this command line as the ranks of `config`.

    Raises:
        UserError: no such profile, or it cannot run this number of processes on this number of machines.
    """
    from accelerate.commands.launch import launch_command_parser

    assert config.profile is not None
    file = find_profile(config.profile)
    profile = read_profile(file)
    num_processes = config.num_processes or profile.num_processes
    num_machines = config.num_machines or profile.num_machines
    if not isinstance(num_processes, int) or not isinstance(num_machines, int) or num_machines < 1:
        numbers = f"num_processes {num_processes!r}, num_machines {num_machines!r}"
        raise UserError(f"{file}: {numbers}; expected whole numbers, and at least one machine.")
    host, port = profile.main_process_ip, profile.main_process_port
    if config.main_process_ip is not None:
        host, port = config.main_process_ip, config.main_process_port
    elif num_machines == 1:
        port = 0  # a free one, so that two runs on one machine do not collide
    has_address = bool(host and port)
    _require_valid_topology(file, profile, num_processes, num_machines, has_address)
    options = {
        "config_file": file,
        "num_processes": num_processes,
        "num_machines": num_machines,
        "machine_rank": profile.machine_rank if config.machine_rank is None else config.machine_rank,
        "main_process_port": port,
        "rdzv_conf": f"timeout={config.rendezvous_timeout}",
        "deepspeed_multinode_launcher": "standard",  # torchrun on each machine, as without DeepSpeed; not pdsh
    }
    if host:
        options["main_process_ip"] = host
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return launch_command_parser().parse_args([*words, "-m", "signllava_cli", *sys.argv[1:]])


def _require_valid_topology(
    file: Path, profile: "ClusterConfig", num_processes: int, num_machines: int, has_address: bool
) -> None:
    import torch
    from accelerate.utils import DistributedType

    if profile.distributed_type == DistributedType.DEEPSPEED:
        require_extra("deepspeed", str(file), "deepspeed")
    if num_processes < 1:
        raise UserError(f"{file} does not set num_processes; add --num-processes.")
    if num_processes > 1 and profile.distributed_type == DistributedType.NO:
        raise UserError(f"{file} is for one process, not for {num_processes}; use the profile multi_gpu or zero2.")
    if num_processes % num_machines:
        raise UserError(
            f"--num-processes {num_processes} is not a multiple of {num_machines} machines; "
            f"use --num-processes {max(1, num_processes // num_machines) * num_machines}."
        )
    if num_machines > 1 and not has_address:
        raise UserError(
            f"{file} on {num_machines} machines: add --main-process-ip and --main-process-port of machine 0, and the "
            "--machine-rank of each machine."
        )
    gpus = torch.cuda.device_count()
    if gpus and not profile.use_cpu and num_processes // num_machines > gpus:
        raise UserError(
            f"{file}: {num_processes // num_machines} processes on this machine, which has "
            f"{format_count(gpus, 'GPU')}; "
            f"use --num-processes {gpus * num_machines}."
        )
