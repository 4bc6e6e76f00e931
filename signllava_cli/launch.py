"""A profile name or file -> accelerate's own launcher, in this process."""

import os
import subprocess
import sys
from pathlib import Path

from signllava_cli.errors import Stopped, UserError
from signllava_cli.recipe import Recipe, Stage, require_stage, shipped_folder


def run_stage(
    stage: Stage, recipe: Recipe, resume: str, profile: str | None = None, num_processes: int | None = None
) -> None:
    """Train here, or hand this command line to accelerate's launcher when a profile is named.

    The command line beats the recipe's `launch` section. A process that a launcher started (it knows its rank)
    trains, whatever the recipe says.
    """
    profile = profile or recipe.launch.profile
    if profile is None or "RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        from signllava_cli.training.loop import train

        train(recipe, stage, resume)
        return
    require_stage(recipe, stage)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    processes = num_processes or recipe.launch.num_processes
    options = ["--config_file", str(find_profile(profile))]
    options += ["--num_processes", str(processes)] if processes else []
    command = launch_command_parser().parse_args([*options, "-m", "signllava_cli", *sys.argv[1:]])
    try:
        launch_command(command)
    except subprocess.CalledProcessError as failed:
        raise SystemExit(failed.returncode) from None
    except SignalException:  # the ranks were told to stop, and save
        raise SystemExit(Stopped.exit_code) from None
    except ChildFailedError as failed:  # the rank has said why; its exit code is the run's
        raise SystemExit(failed.get_first_failure()[1].exitcode) from None


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
