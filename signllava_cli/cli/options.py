"""Options that several commands share."""

import json
from pathlib import Path
from typing import Annotated

import typer

RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="A recipe file, or the name of a shipped one (`recipes list`).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.learning_rate=1e-3. Repeatable."),
]
ResumeOption = Annotated[
    str,
    typer.Option(
        metavar="auto|never|DIR",
        help="Resume from the newest complete checkpoint (or start), start from step 0, or resume from DIR.",
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="A run (its best checkpoint), a step folder, or its link `best` or `last`.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Try the longest batch, the dev split and a checkpoint; print memory and hours."),
]
LaunchOption = Annotated[
    str | None,
    typer.Option("--launch", metavar="PROFILE", help="A profile of accelerate_configs/, by name or file."),
]
NumProcessesOption = Annotated[
    int | None, typer.Option("--num-processes", min=1, help="Processes over all machines. Default: the profile's.")
]
NumMachinesOption = Annotated[
    int | None,
    typer.Option("--num-machines", min=1, help="Machines; run the command on each. Default: the profile's."),
]
MachineRankOption = Annotated[
    int | None, typer.Option("--machine-rank", min=0, help="The index of this machine, from 0 on.")
]
MainProcessIPOption = Annotated[
    str | None, typer.Option("--main-process-ip", metavar="HOST", help="Host name or IP address of machine 0.")
]
MainProcessPortOption = Annotated[
    int | None,
    typer.Option("--main-process-port", metavar="PORT", min=1, max=65535, help="A free port of machine 0."),
]
DatasetArgument = Annotated[Path, typer.Argument(metavar="DATA", help="The dataset folder.", show_default=False)]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split; repeatable. Default: every split that is there.")
]


def launch_overrides(
    profile: str | None,
    num_processes: int | None,
    num_machines: int | None,
    machine_rank: int | None,
    main_process_ip: str | None,
    main_process_port: int | None,
) -> list[str]:
    """The options of section `launch` that are on the command line, as overrides in the form of `--set`."""
    options = {
        "profile": profile,
        "num_processes": num_processes,
        "num_machines": num_machines,
        "machine_rank": machine_rank,
        "main_process_ip": main_process_ip,
        "main_process_port": main_process_port,
    }
    return [f"launch.{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
